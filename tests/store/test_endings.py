"""How requests with `finally` parts end: who marks them, what a second stop does, and who learns of it."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import FailedPreconditionError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.audit_pb2 import AuditFilter
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_server.capabilities import FINALLY, Requirement
from spincycle_server.store import Store
from spincycle_server.store.audit import event_row
from spincycle_server.store.states import StopOutcome, UnassignedStop
from tests.request_manager.doubles import state_of
from tests.store.age import DAY, make_suspension_older
from tests.store.samples import (
    OTHER_RUNNER,
    RUNNER,
    a_chain,
    a_log_entry,
    a_report,
    a_request,
    a_suspended_chain,
)
from tests.store.test_audit import an_event

NEEDS = Requirement(frozenset({"noop", "nap"}), features=frozenset({FINALLY}))


async def create(store: Store, runner: RunnerInfo | None = RUNNER) -> str:
    """Stores a request that has a `finally` part, and returns its id."""
    request = a_request()
    message = CreateRequest(type=request.type, user=request.user)
    await store.create_request(request, message, a_chain(request.id), runner, requirement=NEEDS)
    return request.id


async def suspended(store: Store) -> str:
    """Stores a SUSPENDED request that has one, and returns its id."""
    request_id = await create(store)
    await suspend(store, request_id)
    return request_id


async def suspend(store: Store, request_id: str, epoch: int = 1) -> None:
    report = a_report(request_id, epoch=epoch, ends=a_suspended_chain(request_id))
    assert await store.apply_reports("r1" if epoch == 1 else "r2", [report]) == []


async def found(store: Store, request_id: str) -> Request:
    return await store.get_request(request_id, with_job_chain=False)


async def resume(store: Store, request_id: str) -> Assignment | None:
    return await store.assign(request_id, OTHER_RUNNER, expected_state=State.SUSPENDED)


async def nobody_resumes(store: Store, request_id: str) -> list[str]:
    """Lets the time pass in which a suspended request must be resumed. Returns the requests that failed."""
    await make_suspension_older(store, request_id)
    return list(await store.fail_unresumed(DAY / 2))


async def test_a_stop_marks_a_running_request_and_a_second_one_skips(store: Store) -> None:
    made = await create(store)
    assert await store.request_stop(made) is StopOutcome.RUNNING
    assert State((await found(store, made)).ending) is State.STOPPED
    assert (await found(store, made)).waiting == (
        "STOPPED after its finally nodes: stop it again to skip them"
    )
    assert await store.request_stop(made, is_repeated=True) is StopOutcome.RUNNING
    assert not (await store.assigned_to("r1"))[made].skip_finally
    assert await store.request_stop(made) is StopOutcome.FINALLY_SKIPPED
    assert (await store.assigned_to("r1"))[made].skip_finally
    assert (await found(store, made)).waiting == ""
    record = await store.get_record(made)
    assert (record.ending, record.skip_finally) == (State.STOPPED, True)
    assert await store.apply_reports("r1", [a_report(made, ends=State.STOPPED)]) == []
    assert not (await found(store, made)).ending


async def test_each_stop_that_changes_something_is_recorded(store: Store) -> None:
    made = await create(store)
    for user in ("finch", "wren", "owl"):
        await store.request_stop(made, event_row(an_event(request_id=made, user=user)))
    events = (await store.list_audit_events(AuditFilter(request_id=made))).events
    assert sorted(event.user for event in events) == ["finch", "wren"]


async def test_a_stop_of_a_suspended_request_lets_a_runner_end_it(store: Store) -> None:
    made = await suspended(store)
    assert await store.stop_unassigned(made) is UnassignedStop.FINALLY_RUNS
    assert await store.stop_unassigned(made, is_repeated=True) is UnassignedStop.FINALLY_RUNS
    taken = await resume(store, made)
    assert taken == Assignment(request_id=made, epoch=2, ending=state_pb2.STATE_STOPPED)
    # Its runner shuts down, so the next one learns of it too.
    await suspend(store, made, epoch=2)
    taken = await resume(store, made)
    assert taken == Assignment(request_id=made, epoch=3, ending=state_pb2.STATE_STOPPED)


async def test_a_second_stop_ends_a_suspended_request(store: Store) -> None:
    made = await suspended(store)
    await store.stop_unassigned(made)
    assert await store.stop_unassigned(made) is UnassignedStop.ENDED
    assert await state_of(store, made) is State.STOPPED
    assert await store.get_suspended(made) is None
    assert await store.stop_unassigned(made) is UnassignedStop.NOT_UNASSIGNED


async def test_a_second_stop_while_a_runner_suspends_ends_the_request_with_the_next_assignment(
    store: Store,
) -> None:
    made = await create(store)
    await store.request_stop(made)
    await store.request_stop(made)
    await suspend(store, made)
    assert await resume(store, made) is None
    assert await state_of(store, made) is State.STOPPED


async def test_a_stop_of_a_pending_request_ends_it(store: Store) -> None:
    """Nothing has started, so it owes nothing."""
    waiting, refused = await create(store, None), await create(store)
    assert await store.stop_unassigned(waiting) is UnassignedStop.ENDED
    await store.request_stop(refused)
    assert await store.unassign(Assignment(request_id=refused, epoch=1), State.PENDING)
    assert await store.assign(refused, OTHER_RUNNER, expected_state=State.PENDING) is None
    for made in (waiting, refused):
        assert await state_of(store, made) is State.STOPPED


async def test_a_lost_request_that_is_being_stopped_tells_its_next_runner(store: Store) -> None:
    made = await create(store)
    await store.request_stop(made)
    taken = await store.assign(made, OTHER_RUNNER, expected_state=State.RUNNING, expected_epoch=1)
    assert taken == Assignment(request_id=made, epoch=2, ending=state_pb2.STATE_STOPPED)


async def test_a_request_that_nobody_resumes_has_as_long_again_for_its_finally(store: Store) -> None:
    made = await suspended(store)
    assert await nobody_resumes(store, made) == []
    assert State((await found(store, made)).ending) is State.FAIL
    assert await store.fail_unresumed(DAY / 2) == []
    assert await nobody_resumes(store, made) == [made]
    assert await state_of(store, made) is State.FAIL


async def test_a_stopped_request_that_nobody_resumes_ends_as_stopped(store: Store) -> None:
    made = await suspended(store)
    await make_suspension_older(store, made)
    await store.stop_unassigned(made)
    assert await store.fail_unresumed(DAY / 2) == []  # The stop gives it time.
    assert await nobody_resumes(store, made) == [made]
    assert await state_of(store, made) is State.STOPPED


async def test_the_first_stop_of_a_request_that_must_fail_skips_nothing(store: Store) -> None:
    made = await suspended(store)
    await nobody_resumes(store, made)
    assert (await found(store, made)).waiting == "FAIL after its finally nodes: stop it twice to skip them"
    assert await store.stop_unassigned(made) is UnassignedStop.FINALLY_RUNS
    assert (await found(store, made)).waiting == "FAIL after its finally nodes: stop it again to skip them"
    taken = await resume(store, made)
    assert taken == Assignment(request_id=made, epoch=2, ending=state_pb2.STATE_FAIL)
    assert await store.request_stop(made) is StopOutcome.FINALLY_SKIPPED
    other = await suspended(store)
    await nobody_resumes(store, other)
    await store.stop_unassigned(other)
    assert await store.stop_unassigned(other) is UnassignedStop.ENDED
    assert await state_of(store, other) is State.FAIL


async def test_a_try_that_must_fail_the_request_does_so_although_it_is_being_stopped(store: Store) -> None:
    made = await create(store)
    await store.request_stop(made)
    report = a_report(made, a_log_entry(made, state=state_pb2.STATE_FAIL))
    report.tries[0].must_fail = True
    assert await store.apply_reports("r1", [report]) == []
    assert (await store.get_record(made)).ending is State.FAIL
    taken = await store.assign(made, OTHER_RUNNER, expected_state=State.RUNNING, expected_epoch=1)
    assert taken == Assignment(request_id=made, epoch=2, ending=state_pb2.STATE_FAIL)


async def test_a_stop_ends_a_pause_and_a_request_that_ends_is_not_paused(store: Store) -> None:
    made = await suspended(store)
    await store.begin_pause(made, "finch", stops_jobs=False)
    assert await resume(store, made) is None
    assert await nobody_resumes(store, made) == []
    assert not (await found(store, made)).ending
    await store.stop_unassigned(made)
    with pytest.raises(FailedPreconditionError) as caught:
        await store.begin_pause(made, "finch", stops_jobs=False)
    assert caught.value.reason == "WRONG_STATE"
    assert await resume(store, made) is not None


async def test_why_no_runner_takes_a_request_is_shown_beside_its_end(store: Store) -> None:
    made = await suspended(store)
    await store.stop_unassigned(made)
    store.reasons.of_runners = lambda *_: "no job runner has it"
    store.reasons.cannot_pause = lambda _: True
    ending = "STOPPED after its finally nodes: stop it again to skip them"
    assert (await found(store, made)).waiting == f"{ending}; no job runner has it"
    await resume(store, made)
    store.reasons.of_runners = lambda *_: ""
    assert (await found(store, made)).waiting == ending
