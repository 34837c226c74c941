"""Deliveries: retries, refusals, and limits of the chains in flight."""

from __future__ import annotations

import asyncio

import pytest

from spincycle_grpc.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    ResourceExhaustedError,
    SpinCycleError,
    UnavailableError,
)
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_runner_pb2 import AssignedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_server.request_manager import delivery as delivery_module
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.store import Store
from tests.limits import STEP
from tests.request_manager.doubles import ScriptedRunners, deliveries_end, make_dispatcher, state_of
from tests.store.samples import RUNNER, a_chain, create

FULL = ResourceExhaustedError("full", reason="TOO_MANY_CHAINS")
AWAY = UnavailableError("cannot reach it")
INVALID = InvalidArgumentError("no such job type", reason="INVALID_JOB_CHAIN")
SHUTTING_DOWN = UnavailableError("shutting down", reason="SHUTTING_DOWN")
OTHER = FailedPreconditionError("another runner", reason="OTHER_RUNNER")


async def sent(store: Store, *answers: SpinCycleError | None) -> str:
    """Delivers a request that is assigned to r1. Returns its id when the delivery has ended."""
    made = await create(store, RUNNER)
    runners = ScriptedRunners(store, *answers)
    dispatcher = await make_dispatcher(store, runners)
    dispatcher.deliver(RUNNER, Assignment(request_id=made.id, epoch=1), a_chain(made.id))
    await deliveries_end(dispatcher)
    assert not runners.answers
    return made.id


async def test_a_refused_chain_is_pending_again(store: Store) -> None:
    request_id = await sent(store, FULL)
    assert await store.waiting_requests(10) == [request_id]


async def test_a_chain_that_may_have_run_is_not_started_again(store: Store) -> None:
    request_id = await sent(store, AWAY, FULL)
    assert await store.waiting_requests(10) == []
    found = await store.get_request(request_id, with_job_chain=False)
    assert State(found.state) is State.RUNNING
    # It continues from its record.
    assert await store.lost_requests(10) == [Assignment(request_id=request_id, epoch=1)]


@pytest.mark.parametrize("answers", [(OTHER,), (AWAY, OTHER)])
async def test_a_runner_whose_address_belongs_to_another_is_gone(
    store: Store, answers: tuple[SpinCycleError, ...]
) -> None:
    held = await create(store, RUNNER)
    await sent(store, *answers)
    assert await store.live_runners() == []
    assert held.id in {lost.request_id for lost in await store.lost_requests(10)}


async def test_a_request_that_was_taken_over_meanwhile_keeps_its_assignment(store: Store) -> None:
    made = await create(store, RUNNER)
    await store.remove_runner(RUNNER.runner_id)
    other = RunnerInfo(runner_id="r3", url="http://127.0.0.1:1", grpc_address="127.0.0.1:2")
    await store.renew_runner(other, 3600, draining=False)
    assert await store.assign(made.id, other, expected_state=State.RUNNING, expected_epoch=1)
    dispatcher = await make_dispatcher(store, ScriptedRunners(store, FULL))
    dispatcher.deliver(RUNNER, Assignment(request_id=made.id, epoch=1), a_chain(made.id))
    await deliveries_end(dispatcher)
    assert await store.get_assignment(made.id) == (Assignment(request_id=made.id, epoch=2), "r3")


async def test_a_request_whose_chain_is_invalid_fails(store: Store) -> None:
    assert await state_of(store, await sent(store, INVALID)) is State.FAIL


async def test_a_runner_that_answers_late_keeps_the_chain(store: Store) -> None:
    request_id = await sent(store, AWAY, SHUTTING_DOWN, None)
    assert await store.get_assignment(request_id) == (Assignment(request_id=request_id, epoch=1), "r1")


async def test_a_runner_that_shuts_down_gets_no_more_chains(store: Store) -> None:
    request = await create(store, RUNNER)
    runners = ScriptedRunners(store, SHUTTING_DOWN)
    dispatcher = await make_dispatcher(store, runners)
    dispatcher.deliver(RUNNER, Assignment(request_id=request.id, epoch=1), a_chain(request.id))
    await deliveries_end(dispatcher)
    assert await state_of(store, request.id) is State.PENDING
    assert runners.get("r1") == RUNNER
    assert runners.pick() is None


async def test_a_delivery_is_retried_only_while_its_assignment_stands(store: Store) -> None:
    request = await create(store, RUNNER)
    runners = ScriptedRunners(store, *[AWAY] * 1000)
    dispatcher = await make_dispatcher(store, runners)
    dispatcher.deliver(RUNNER, Assignment(request_id=request.id, epoch=1), a_chain(request.id))
    await asyncio.sleep(0)
    await store.finish(request.id, State.COMPLETE, 1, 3)
    await deliveries_end(dispatcher)
    assert runners.answers


async def test_a_delivery_is_retried_only_while_its_runner_lives(store: Store) -> None:
    request = await create(store, RUNNER)
    runners = ScriptedRunners(store, *[AWAY] * 1000)
    dispatcher = await make_dispatcher(store, runners)
    dispatcher.deliver(RUNNER, Assignment(request_id=request.id, epoch=1), a_chain(request.id))
    await asyncio.sleep(0)
    runners.remove("r1")
    await deliveries_end(dispatcher)
    assert runners.answers
    # The runner may have the chain. The request is taken over when the lease is over.
    assert await store.get_assignment(request.id) == (Assignment(request_id=request.id, epoch=1), "r1")


class HeldRunners(ScriptedRunners):
    """Runners that answer when `may_answer` is set."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        self.may_answer = asyncio.Event()

    async def start_job_chain(self, runner: RunnerInfo, chain: bytes) -> None:
        self.asked.put_nowait(AssignedJobChain.FromString(chain).job_chain.request_id)
        await self.may_answer.wait()


async def dispatched(store: Store) -> tuple[Dispatcher, HeldRunners, list[str], list[str]]:
    """Dispatches three requests of three jobs.

    Returns:
        The dispatcher, its runners, the requests, and the requests that are in flight.
    """
    made = [(await create(store, None)).id for _ in range(3)]
    runners = HeldRunners(store)
    dispatcher = await make_dispatcher(store, runners)
    count = await dispatcher._dispatch_pending(made)
    async with asyncio.timeout(STEP):
        return dispatcher, runners, made, [await runners.asked.get() for _ in range(count)]


async def test_the_number_of_chains_in_flight_is_limited(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "MAX_IN_FLIGHT", 2)
    dispatcher, runners, made, in_flight = await dispatched(store)
    assert set(in_flight) == set(made[:2])
    assert (dispatcher._delivery.free_slots, dispatcher._delivery.has_room) == (0, False)
    assert await dispatcher.pick_runner() is None
    assert await store.waiting_requests(10) == made[2:]
    runners.may_answer.set()
    await deliveries_end(dispatcher)
    assert dispatcher._delivery.has_room
    assert await dispatcher._dispatch_pending(made[2:]) == 1
    await deliveries_end(dispatcher)
    assert runners.asked.get_nowait() == made[2]


async def test_the_number_of_jobs_in_flight_is_limited(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "MAX_IN_FLIGHT_JOBS", 6)
    dispatcher, _, made, in_flight = await dispatched(store)
    assert set(in_flight) == set(made)
    assert dispatcher._delivery.free_slots > 0
    assert not dispatcher._delivery.has_room
    assert await dispatcher.pick_runner() is None
    waits = await create(store, None)
    assert await dispatcher._dispatch_pending([waits.id]) == 0
    await dispatcher.close()
    assert dispatcher._delivery.has_room


async def test_background_work_is_not_started_without_a_free_slot(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "MAX_IN_FLIGHT", 3)
    dispatcher, _, _, _ = await dispatched(store)
    started: list[str] = []

    async def work() -> None:
        started.append("started")

    dispatcher.try_in_background(work)
    await asyncio.sleep(0)
    assert not started
    await dispatcher.close()
    dispatcher.try_in_background(work)
    await asyncio.gather(*dispatcher._delivery._in_flight)
    assert started == ["started"]
