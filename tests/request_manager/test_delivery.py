"""Deliveries: retries, refusals, and limits of the chains in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from spincycle_grpc.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
    SpinCycleError,
    UnauthenticatedError,
    UnavailableError,
)
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_runner_pb2 import AssignedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_server.capabilities import NEEDS_NOTHING
from spincycle_server.request_manager import delivery as delivery_module
from spincycle_server.request_manager import full_runners as full_runners_module
from spincycle_server.request_manager.delivery import Delivery
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.request_manager.pending_requests import PendingRequests
from spincycle_server.request_manager.runners import Runners
from spincycle_server.store import Store
from spincycle_server.store.requirements import WaitingRequest
from tests.limits import STEP
from tests.request_manager.doubles import (
    Clock,
    ScriptedRunners,
    deliveries_end,
    make_dispatcher,
    state_of,
)
from tests.store.samples import (
    RUNNER,
    a_chain,
    a_report,
    a_suspended_chain,
    create,
    live_now,
    lost_assignments,
    waiting_ids,
)

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
    assert await waiting_ids(store) == [request_id]


async def test_a_refused_chain_counts_as_pending_again(store: Store) -> None:
    request = await create(store, RUNNER)
    dispatcher = await make_dispatcher(store, ScriptedRunners(store, FULL), max_waiting=1)
    dispatcher.check_limit()
    dispatcher.deliver(RUNNER, Assignment(request_id=request.id, epoch=1), a_chain(request.id))
    await deliveries_end(dispatcher)
    with pytest.raises(ResourceExhaustedError):
        dispatcher.check_limit()


async def test_a_full_runner_gets_no_chain_until_it_has_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_runners_module, "time", Clock())  # so that no probe is due
    request = await create(store, RUNNER)
    runners = ScriptedRunners(store, FULL)
    dispatcher = await make_dispatcher(store, runners)
    dispatcher.deliver(RUNNER, Assignment(request_id=request.id, epoch=1), a_chain(request.id))
    await deliveries_end(dispatcher)
    assert runners.pick() is None
    dispatcher.add_places(RUNNER.runner_id, 1)
    assert runners.pick() == RUNNER
    assert runners.pick() is None


async def test_a_chain_that_may_have_run_is_not_started_again(store: Store) -> None:
    request_id = await sent(store, AWAY, FULL)
    assert await waiting_ids(store) == []
    found = await store.get_request(request_id, with_job_chain=False)
    assert State(found.state) is State.RUNNING
    # It continues from its record.
    assert await lost_assignments(store) == [Assignment(request_id=request_id, epoch=1)]


@pytest.mark.parametrize("answers", [(OTHER,), (AWAY, OTHER)])
async def test_a_runner_whose_address_belongs_to_another_is_gone(
    store: Store, answers: tuple[SpinCycleError, ...]
) -> None:
    held = await create(store, RUNNER)
    await sent(store, *answers)
    assert await live_now(store) == []
    assert held.id in {lost.request_id for lost in await lost_assignments(store)}


@pytest.mark.parametrize("error", [UnauthenticatedError("who are you?"), PermissionDeniedError("not you")])
async def test_a_runner_that_does_not_accept_this_server_gets_no_chains_for_a_while(
    store: Store, error: SpinCycleError
) -> None:
    request = await create(store, RUNNER)
    runners = ScriptedRunners(store, error)
    dispatcher = await make_dispatcher(store, runners)
    dispatcher.deliver(RUNNER, Assignment(request_id=request.id, epoch=1), a_chain(request.id))
    await deliveries_end(dispatcher)
    assert await state_of(store, request.id) is State.PENDING
    assert runners.pick() is None
    await runners.refresh()
    assert runners.get("r1") == RUNNER
    assert (runners.any_free(), runners.pick()) == (False, None)


async def test_a_runner_that_may_have_a_chain_keeps_it_while_it_does_not_accept_this_server(
    store: Store,
) -> None:
    request_id = await sent(store, AWAY, UnauthenticatedError("who are you?"), None)
    assert await store.get_assignment(request_id) == (Assignment(request_id=request_id, epoch=1), "r1")


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


async def test_a_delivery_is_retried_if_the_database_does_not_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get_assignment(request_id: str) -> tuple[Assignment, str] | None:
        raise UnavailableError("the database does not answer")

    monkeypatch.setattr(store, "get_assignment", get_assignment)
    await sent(store, AWAY, None)  # It checks that both attempts were made.


async def test_a_suspended_chain_is_dropped_when_a_runner_accepts_it(store: Store) -> None:
    request = await create(store, RUNNER)
    suspended = a_suspended_chain(request.id)
    await store.apply_reports("r1", [a_report(request.id, ends=suspended)])
    again = await store.assign(request.id, RUNNER, expected_state=State.SUSPENDED)
    assert again is not None
    dispatcher = await make_dispatcher(store, ScriptedRunners(store, None))
    assert await store.get_suspended(request.id) == suspended
    dispatcher._delivery.send_suspended(RUNNER, again, suspended)
    await deliveries_end(dispatcher)
    assert await store.get_suspended(request.id) is None


def waiting(*request_ids: str) -> list[WaitingRequest]:
    return [WaitingRequest(one, NEEDS_NOTHING) for one in request_ids]


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
    sent = await dispatcher._dispatch_pending(waiting(*made))
    async with asyncio.timeout(STEP):
        return dispatcher, runners, made, [await runners.asked.get() for _ in sent]


async def test_the_number_of_chains_in_flight_is_limited(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "MAX_IN_FLIGHT", 2)
    dispatcher, runners, made, in_flight = await dispatched(store)
    assert set(in_flight) == set(made[:2])
    assert (dispatcher._delivery.free_slots, dispatcher._delivery.has_room) == (0, False)
    assert await dispatcher.pick_runner() is None
    assert await waiting_ids(store) == made[2:]
    runners.may_answer.set()
    await deliveries_end(dispatcher)
    assert dispatcher._delivery.has_room
    assert await dispatcher._dispatch_pending(waiting(made[2])) == waiting(made[2])
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
    assert await dispatcher._dispatch_pending(waiting(waits.id)) == []
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


class AnsweredRunners(Runners):
    """Runners whose answer a test sets."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start_job_chain(self, runner: RunnerInfo, chain: bytes) -> asyncio.Future[None]:
        return self.answer


class SteppedRunners(ScriptedRunners):
    """Runners that accept one chain for each release of `may_answer`."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.may_answer = asyncio.Semaphore(0)

    async def start_job_chain(self, runner: RunnerInfo, chain: bytes) -> None:
        await self.may_answer.acquire()


class CountedWakes(PendingRequests):
    """PENDING requests that count how often they are woken."""

    wakes = 0

    def wake(self) -> None:
        self.wakes += 1


async def no_runner(waiting: Sequence[WaitingRequest]) -> Sequence[WaitingRequest]:
    return []


@pytest.mark.parametrize(("limit", "value"), [("MAX_IN_FLIGHT", 4), ("MAX_IN_FLIGHT_JOBS", 12)])
@pytest.mark.parametrize("are_pending", [True, False])
async def test_pending_requests_are_woken_once_when_deliveries_fall_to_half_of_a_limit(
    store: Store, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, are_pending: bool
) -> None:
    monkeypatch.setattr(delivery_module, limit, value)
    runners = SteppedRunners(store)
    pending = CountedWakes(store, runners, no_runner, limit=10, blocked_limit=10, interval=3600)
    if are_pending:
        pending.add()
    wakes: asyncio.Queue[int] = asyncio.Queue()
    delivery = Delivery(
        store,
        runners,
        pending,
        on_room=lambda: wakes.put_nowait(pending.wakes),
        on_runner_gone=lambda: None,
    )
    for number in range(4):  # Each chain has three jobs.
        delivery.send(RUNNER, Assignment(request_id=f"request{number}", epoch=1), a_chain(f"request{number}"))
    assert not delivery.has_room
    counted: list[int] = []
    async with asyncio.timeout(STEP):
        for _ in range(4):
            runners.may_answer.release()
            counted.append(await wakes.get())
    assert counted == ([0, 1, 1, 1] if are_pending else [0, 0, 0, 0])


async def test_a_database_that_is_away_ends_a_delivery_without_a_traceback(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise UnavailableError("the database does not answer", reason="DATABASE_UNAVAILABLE")

    monkeypatch.setattr(store, "unassign", fail)
    with capture_logs() as logs:
        await sent(store, FULL)
    (line,) = [one for one in logs if one["event"] == "delivery failed"]
    assert (line["log_level"], line["reason"]) == ("warning", "DATABASE_UNAVAILABLE")
    assert "exc_info" not in line


@pytest.mark.parametrize("answer", [AWAY, FULL, None])
async def test_nothing_is_delivered_after_the_end_even_if_an_answer_has_just_arrived(
    store: Store, answer: SpinCycleError | None
) -> None:
    runners = AnsweredRunners(store)
    dispatcher = await make_dispatcher(store, runners)
    made = await create(store, RUNNER)
    dispatcher.deliver(RUNNER, Assignment(request_id=made.id, epoch=1), a_chain(made.id))
    if answer is None:
        runners.answer.set_result(None)
    else:
        runners.answer.set_exception(answer)
    await dispatcher.close()  # before the delivery has noticed the answer
    assert dispatcher._delivery.free_slots == delivery_module.MAX_IN_FLIGHT
    assert State((await store.get_request(made.id, with_job_chain=False)).state) is State.RUNNING
