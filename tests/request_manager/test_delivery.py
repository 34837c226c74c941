"""What becomes of a request whose runner does not take it."""

from __future__ import annotations

import asyncio

import pytest

from spincycle_grpc.errors import (
    FailedPreconditionError,
    ResourceExhaustedError,
    SpinCycleError,
    UnavailableError,
)
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_runner_pb2 import AssignedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_server.request_manager import delivery as delivery_module
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.request_manager.runners import Runners
from spincycle_server.store import Store
from tests.limits import STEP
from tests.store.samples import RUNNER, a_chain, create

FULL = ResourceExhaustedError("full", reason="TOO_MANY_CHAINS")
AWAY = UnavailableError("cannot reach it")
OTHER = FailedPreconditionError("another runner", reason="OTHER_RUNNER")


class ToldRunners(Runners):
    """Runners that answer what they are told to."""

    def __init__(self, store: Store, *answers: SpinCycleError | None) -> None:
        super().__init__(store)
        self.answers = list(answers)

    async def start_job_chain(self, runner: RunnerInfo, chain: bytes) -> None:
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer


async def sent(store: Store, *answers: SpinCycleError | None) -> str:
    """Sends a request that is assigned, and returns its id when there is nothing more to say."""
    made = await create(store, RUNNER)
    runners = ToldRunners(store, *answers)
    await runners.refresh()
    dispatcher = Dispatcher(store, runners, interval=3600, suspended_timeout=3600)
    dispatcher.deliver(RUNNER, Assignment(request_id=made.id, epoch=1), a_chain(made.id))
    async with asyncio.timeout(STEP):
        await asyncio.gather(*dispatcher._delivery._in_flight)
    assert not runners.answers
    return made.id


async def test_what_no_runner_took_waits_as_before(store: Store) -> None:
    request_id = await sent(store, FULL)
    assert await store.waiting_requests(10) == [request_id]


async def test_what_may_have_run_is_not_begun_again(store: Store) -> None:
    request_id = await sent(store, AWAY, FULL)
    assert await store.waiting_requests(10) == []
    found = await store.get_request(request_id, with_job_chain=False)
    assert State(found.state) is State.RUNNING
    # It goes on from its record.
    assert await store.lost_requests(10) == [Assignment(request_id=request_id, epoch=1)]


@pytest.mark.parametrize("answers", [(OTHER,), (AWAY, OTHER)])
async def test_a_runner_whose_address_is_anothers_is_gone(
    store: Store, answers: tuple[SpinCycleError, ...]
) -> None:
    held = await create(store, RUNNER)
    await sent(store, *answers)
    assert await store.live_runners() == []
    assert held.id in {lost.request_id for lost in await store.lost_requests(10)}


async def test_what_was_taken_over_meanwhile_stays_where_it_is(store: Store) -> None:
    made = await create(store, RUNNER)
    await store.remove_runner(RUNNER.runner_id)
    other = RunnerInfo(runner_id="r3", url="http://127.0.0.1:1", grpc_address="127.0.0.1:2")
    await store.renew_runner(other, 3600, draining=False)
    assert await store.assign(made.id, other, expected_state=State.RUNNING, expected_epoch=1)
    dispatcher = Dispatcher(store, ToldRunners(store, FULL), interval=3600, suspended_timeout=3600)
    dispatcher.deliver(RUNNER, Assignment(request_id=made.id, epoch=1), a_chain(made.id))
    async with asyncio.timeout(STEP):
        await asyncio.gather(*dispatcher._delivery._in_flight)
    assert await store.get_assignment(made.id) == (Assignment(request_id=made.id, epoch=2), "r3")


class HeldRunners(ToldRunners):
    """Runners that answer when they are let."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.told: asyncio.Queue[str] = asyncio.Queue()
        self.may_answer = asyncio.Event()

    async def start_job_chain(self, runner: RunnerInfo, chain: bytes) -> None:
        self.told.put_nowait(AssignedJobChain.FromString(chain).job_chain.request_id)
        await self.may_answer.wait()


async def handed_out(store: Store) -> tuple[Dispatcher, HeldRunners, list[str], list[str]]:
    """Makes three requests of three jobs, and has a dispatcher hand them out.

    Returns:
        The dispatcher, its runners, the requests, and those that are on their way.
    """
    made = [(await create(store, None)).id for _ in range(3)]
    runners = HeldRunners(store)
    await runners.refresh()
    dispatcher = Dispatcher(store, runners, interval=3600, suspended_timeout=3600)
    given = await dispatcher._dispatch_pending(made)
    async with asyncio.timeout(STEP):
        return dispatcher, runners, made, [await runners.told.get() for _ in range(given)]


async def test_as_many_chains_are_on_their_way_as_may_be(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "MAX_IN_FLIGHT", 2)
    dispatcher, runners, made, told = await handed_out(store)
    assert set(told) == set(made[:2])
    assert (dispatcher._delivery.free_slots, dispatcher._delivery.has_room) == (0, False)
    assert await dispatcher.pick_runner() is None
    assert await store.waiting_requests(10) == made[2:]
    runners.may_answer.set()
    async with asyncio.timeout(STEP):
        await asyncio.gather(*dispatcher._delivery._in_flight)
    assert dispatcher._delivery.has_room
    assert await dispatcher._dispatch_pending(made[2:]) == 1
    async with asyncio.timeout(STEP):
        await asyncio.gather(*dispatcher._delivery._in_flight)
    assert runners.told.get_nowait() == made[2]


async def test_chains_on_their_way_are_counted_by_their_jobs_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "MAX_IN_FLIGHT_JOBS", 6)
    dispatcher, _, made, told = await handed_out(store)
    assert set(told) == set(made)
    assert dispatcher._delivery.free_slots > 0
    assert not dispatcher._delivery.has_room
    assert await dispatcher.pick_runner() is None
    waits = await create(store, None)
    assert await dispatcher._dispatch_pending([waits.id]) == 0
    await dispatcher.close()
    assert dispatcher._delivery.has_room


async def test_what_can_wait_is_not_begun_when_too_much_is_on_its_way(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "MAX_IN_FLIGHT", 3)
    dispatcher, _, _, _ = await handed_out(store)
    begun: list[str] = []

    async def work() -> None:
        begun.append("begun")

    dispatcher.try_in_background(work)
    await asyncio.sleep(0)
    assert not begun
    await dispatcher.close()
    dispatcher.try_in_background(work)
    await asyncio.gather(*dispatcher._delivery._in_flight)
    assert begun == ["begun"]
