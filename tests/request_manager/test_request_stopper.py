"""Stops: committed before a runner is told, and answered even if the runner cannot be reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from spincycle_grpc.errors import FailedPreconditionError, NotFoundError, SpinCycleError, UnavailableError
from spincycle_grpc.state import State
from spincycle_grpc.v1.audit_pb2 import AuditFilter
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.request_manager.holders import TELL_TRIES
from spincycle_server.request_manager.original_runners import OriginalRunners
from spincycle_server.request_manager.request_stopper import RequestStopper
from spincycle_server.store import Store
from spincycle_server.store.audit import event_row
from tests.limits import STEP
from tests.request_manager.doubles import (
    WillingRunners,
    deliveries_end,
    make_dispatcher,
    reaches_state,
    state_of,
)
from tests.store.samples import OTHER_RUNNER, RUNNER, a_report, a_suspended_chain, create, waiting_ids
from tests.store.test_audit import an_event
from tests.store.test_endings import create as create_with_finally

AWAY = UnavailableError("cannot reach it")
NO_SUCH_CHAIN = NotFoundError("no such chain", reason="JOB_CHAIN_NOT_FOUND")


@dataclass
class Stops:
    stopper: RequestStopper
    runners: WillingRunners
    dispatcher: Dispatcher


@pytest.fixture
async def stops(store: Store) -> AsyncIterator[Stops]:
    runners = WillingRunners(store)
    dispatcher = await make_dispatcher(store, runners)
    yield Stops(RequestStopper(store, runners, dispatcher, OriginalRunners(store)), runners, dispatcher)
    await dispatcher.close()
    await runners.close()


async def test_a_pending_request_is_stopped_at_once(store: Store, stops: Stops) -> None:
    request = await create(store, None)
    await stops.stopper.stop(request.id)
    assert await state_of(store, request.id) is State.STOPPED
    assert stops.runners.stopped == []


async def test_a_suspended_request_is_stopped_at_once(store: Store, stops: Stops) -> None:
    request = await create(store)
    await store.apply_reports("r1", [a_report(request.id, ends=a_suspended_chain(request.id))])
    await stops.stopper.stop(request.id)
    assert await state_of(store, request.id) is State.STOPPED
    assert await waiting_ids(store, State.SUSPENDED) == []


async def test_a_stop_is_committed_before_the_runner_is_told(
    store: Store, stops: Stops, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await create(store)
    noted: list[bool] = []
    tell = stops.runners.stop_job_chain

    async def look_and_tell(runner: RunnerInfo, request_id: str, *, skip_finally: bool) -> None:
        assert not skip_finally
        noted.append((await store.get_record(request_id)).stop_requested)
        await tell(runner, request_id)

    monkeypatch.setattr(stops.runners, "stop_job_chain", look_and_tell)
    await stops.stopper.stop(request.id)
    assert noted == [True]
    assert stops.runners.stopped == [("r1", request.id)]
    assert await state_of(store, request.id) is State.RUNNING  # Its runner reports when it has stopped.


@pytest.mark.parametrize("state", [State.COMPLETE, State.STOPPED])
async def test_a_request_that_is_complete_or_stopped_stays_so(
    store: Store, stops: Stops, state: State
) -> None:
    request = await create(store)
    await store.finish(request.id, state, 1, 3)
    await stops.stopper.stop(request.id)
    assert await state_of(store, request.id) is state
    assert stops.runners.stopped == []


async def test_the_event_of_a_stop_is_stored_once_if_the_runner_did_not_take_the_chain(
    store: Store, stops: Stops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is PENDING again when the stop looks at it once more."""
    request = await create(store)

    async def refuse(_: RunnerInfo, request_id: str, *, skip_finally: bool) -> None:
        assert await store.unassign(Assignment(request_id=request_id, epoch=1), State.PENDING)
        raise NO_SUCH_CHAIN

    monkeypatch.setattr(stops.runners, "stop_job_chain", refuse)
    event = event_row(an_event("RequestManager.Stop", request_id=request.id))
    await stops.stopper.stop(request.id, event)
    assert await state_of(store, request.id) is State.STOPPED
    listed = await store.list_audit_events(AuditFilter(request_id=request.id))
    assert [one.operation for one in listed.events] == ["RequestManager.Stop"]


async def test_a_failed_request_cannot_be_stopped(store: Store, stops: Stops) -> None:
    request = await create(store)
    await store.finish(request.id, State.FAIL, 1, 0)
    with pytest.raises(FailedPreconditionError) as caught:
        await stops.stopper.stop(request.id)
    assert (caught.value.reason, caught.value.request_id) == ("WRONG_STATE", request.id)


async def test_an_unknown_request_cannot_be_stopped(stops: Stops) -> None:
    with pytest.raises(NotFoundError) as caught:
        await stops.stopper.stop("00000000000000000000")
    assert caught.value.reason == "REQUEST_NOT_FOUND"


@pytest.mark.parametrize("error", [AWAY, NO_SUCH_CHAIN])
async def test_a_stop_is_answered_after_several_attempts_to_tell_the_runner(
    store: Store, stops: Stops, error: SpinCycleError
) -> None:
    request = await create(store)
    stops.runners.stop_errors = [error] * 2 * TELL_TRIES
    async with asyncio.timeout(STEP):
        await stops.stopper.stop(request.id)
    assert stops.runners.stopped == [("r1", request.id)] * TELL_TRIES
    assert (await store.get_record(request.id)).stop_requested


async def test_a_runner_that_gets_the_chain_late_is_told_again(store: Store, stops: Stops) -> None:
    request = await create(store)
    stops.runners.stop_errors = [NO_SUCH_CHAIN]
    async with asyncio.timeout(STEP):
        await stops.stopper.stop(request.id)
    assert stops.runners.stopped == [("r1", request.id)] * 2


async def test_a_request_that_ends_while_its_runner_is_told_is_left_alone(
    store: Store, stops: Stops, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await create(store)
    calls: list[str] = []

    async def has_just_ended(runner: RunnerInfo, request_id: str, *, skip_finally: bool) -> None:
        calls.append(request_id)
        await store.finish(request_id, State.COMPLETE, 1, 3)
        raise NO_SUCH_CHAIN

    monkeypatch.setattr(stops.runners, "stop_job_chain", has_just_ended)
    async with asyncio.timeout(STEP):
        await stops.stopper.stop(request.id)
    assert calls == [request.id]
    assert await state_of(store, request.id) is State.COMPLETE


async def test_a_runner_that_reports_elsewhere_is_found_in_the_database(store: Store, stops: Stops) -> None:
    await store.renew_runner(OTHER_RUNNER, 3600, draining=False)
    request = await create(store, OTHER_RUNNER)
    assert stops.runners.get("r2") is None
    await stops.stopper.stop(request.id)
    assert stops.runners.stopped == [("r2", request.id)]


async def test_a_request_whose_runner_is_gone_is_taken_over_and_ends_stopped(
    store: Store, stops: Stops
) -> None:
    before = await create(store, OTHER_RUNNER)  # r2 has no lease.
    await store.request_stop(before.id)
    dispatching = asyncio.create_task(stops.dispatcher.run())
    await reaches_state(store, before.id, State.STOPPED)
    request = await create(store, OTHER_RUNNER)  # The first round did not see it, and no other one is due.
    await stops.stopper.stop(request.id)
    await reaches_state(store, request.id, State.STOPPED)
    assert stops.runners.stopped == []
    dispatching.cancel()
    await asyncio.wait({dispatching})


async def test_a_runner_that_does_not_answer_in_the_background_is_told_once(
    store: Store, stops: Stops
) -> None:
    stops.runners.stop_errors = [AWAY]
    stops.stopper.tell_runner(RUNNER, "request", skip_finally=False)
    await deliveries_end(stops.dispatcher)
    assert stops.runners.stopped == [("r1", "request")]


async def test_a_second_stop_lets_the_runner_skip_finally_and_one_call_is_never_two(
    store: Store, stops: Stops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner suspends each request while it is told, so that the call looks again."""
    tell = stops.runners.stop_job_chain

    async def suspend_and_tell(runner: RunnerInfo, request_id: str, *, skip_finally: bool) -> None:
        await tell(runner, request_id, skip_finally=skip_finally)
        await store.apply_reports("r1", [a_report(request_id, ends=a_suspended_chain(request_id))])
        raise NO_SUCH_CHAIN

    once, twice = await create_with_finally(store), await create_with_finally(store)
    await stops.stopper.stop(twice)
    assert stops.runners.skipped == []
    monkeypatch.setattr(stops.runners, "stop_job_chain", suspend_and_tell)
    await stops.stopper.stop(once)
    found = await store.get_request(once, with_job_chain=False)
    assert (State(found.state), State(found.ending)) == (State.SUSPENDED, State.STOPPED)
    await stops.stopper.stop(twice)
    assert stops.runners.skipped == [twice]
    assert await state_of(store, twice) is State.STOPPED
    await stops.stopper.stop(once)
    assert await state_of(store, once) is State.STOPPED
