"""Pauses in the database: who may pause what, and that nothing assigns or fails a paused request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import update

from spincycle_grpc.errors import FailedPreconditionError, NotFoundError
from spincycle_grpc.state import State
from spincycle_grpc.v1.audit_pb2 import AuditFilter
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_server.store import Store
from spincycle_server.store.audit import event_row
from spincycle_server.store.pauses import PauseOutcome
from spincycle_server.store.request_rows import RequestRows
from spincycle_server.store.schema import ORIGINAL, requests
from spincycle_server.store.states import StateWrite
from tests.request_manager.doubles import state_of
from tests.store.age import make_suspension_older
from tests.store.samples import (
    OTHER_RUNNER,
    RUNNER,
    a_log_entry,
    a_report,
    a_suspended_chain,
    create,
    waiting_ids,
)
from tests.store.test_audit import an_event

UNKNOWN = "00000000000000000000"


@dataclass
class _RunByOriginal(StateWrite):
    """Lets a runner of an original have a request."""

    request_id: str

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> None:
        rows.change(self.request_id, state=State.RUNNING, runner_id=ORIGINAL)


async def pause(store: Store, request_id: str, *, now: bool = False) -> PauseOutcome:
    return await store.begin_pause(request_id, "finch", stops_jobs=now)


async def suspend(store: Store, request_id: str, epoch: int = 1, runner_id: str = "r1") -> None:
    report = a_report(request_id, epoch=epoch, ends=a_suspended_chain(request_id))
    assert await store.apply_reports(runner_id, [report]) == []


async def waiting(store: Store, request_id: str) -> str:
    return (await store.get_request(request_id, with_job_chain=False)).waiting


async def test_a_paused_request_that_is_pending_is_not_assigned(store: Store) -> None:
    made, other = await create(store, None), await create(store, None)
    assert await pause(store, made.id) is PauseOutcome.NO_RUNNER
    assert await waiting_ids(store) == [other.id]
    found = await store.requirements.oldest_waiting_for(
        State.PENDING, [(await store.requirements.of(made.id)).requirement_id], 10
    )
    assert [one.request_id for one in found] == [other.id]
    assert await store.assign(made.id, RUNNER, expected_state=State.PENDING) is None
    with pytest.raises(FailedPreconditionError) as caught:
        await store.release(made.id)
    assert caught.value.reason == "REQUEST_PAUSED"
    assert await store.end_pause(made.id) is PauseOutcome.NO_RUNNER
    assert set(await waiting_ids(store)) == {made.id, other.id}
    assert await store.assign(made.id, RUNNER, expected_state=State.PENDING) is not None


async def test_a_paused_request_that_is_suspended_is_neither_assigned_nor_failed(store: Store) -> None:
    made = await create(store)
    assert await pause(store, made.id) is PauseOutcome.TELL_RUNNER
    await suspend(store, made.id)
    assert await waiting_ids(store, State.SUSPENDED) == []
    assert await store.assign(made.id, OTHER_RUNNER, expected_state=State.SUSPENDED) is None
    assert await store.fail_unresumed(-1) == []
    assert await state_of(store, made.id) is State.SUSPENDED


async def test_the_time_to_be_resumed_begins_when_the_pause_ends(store: Store) -> None:
    made = await create(store)
    await pause(store, made.id)
    await suspend(store, made.id)
    await make_suspension_older(store, made.id)
    await store.end_pause(made.id)
    assert await store.fail_unresumed(3600) == []
    assert await waiting_ids(store, State.SUSPENDED) == [made.id]
    assert await store.assign(made.id, OTHER_RUNNER, expected_state=State.SUSPENDED) is not None


async def test_a_lost_request_that_is_paused_is_suspended_by_its_next_assignment(store: Store) -> None:
    made = await create(store)
    await pause(store, made.id)
    taken = await store.assign(made.id, OTHER_RUNNER, expected_state=State.RUNNING, expected_epoch=1)
    assert taken is not None
    assert (await store.get_record(made.id)).paused
    chain = a_suspended_chain(made.id)
    with pytest.raises(FailedPreconditionError):
        await store.suspend(made.id, chain, epoch=1)
    await store.suspend(made.id, chain, epoch=taken.epoch)
    assert await state_of(store, made.id) is State.SUSPENDED
    late = a_report(made.id, a_log_entry(made.id), epoch=taken.epoch)
    assert len(await store.apply_reports("r2", [late])) == 1
    await store.end_pause(made.id)
    assert await store.get_suspended(made.id) == chain
    resumed = await store.assign(made.id, RUNNER, expected_state=State.SUSPENDED)
    assert resumed == Assignment(request_id=made.id, epoch=taken.epoch + 1)


async def test_the_runner_of_a_request_learns_of_its_pause(store: Store) -> None:
    made = await create(store)
    for change, paused, now in ((False, True, False), (True, True, True), (None, False, False)):
        await (store.end_pause(made.id) if change is None else pause(store, made.id, now=change))
        assigned = (await store.assigned_to("r1"))[made.id]
        assert (assigned.paused, assigned.pause_now) == (paused, now)
        held = await store.pause_of(made.id)
        assert held == (Assignment(request_id=made.id, epoch=1), "r1", paused, now)
    await suspend(store, made.id)
    assert await store.pause_of(made.id) is None


async def test_the_first_pause_is_named_and_recorded_and_repetitions_are_not(store: Store) -> None:
    made = await create(store)
    for user, now in (("finch", False), ("wren", False), ("owl", True), ("wren", True)):
        event = event_row(an_event(request_id=made.id, user=user))
        await store.begin_pause(made.id, user, stops_jobs=now, event=event)
    assert (await waiting(store, made.id)).startswith("paused by finch at 20")
    assert (await waiting(store, made.id)).endswith("Z: its running jobs are told to stop")
    events = (await store.list_audit_events(AuditFilter(request_id=made.id))).events
    assert sorted(event.user for event in events) == ["finch", "owl"]


async def test_who_paused_a_request_is_shown_until_it_is_resumed(store: Store) -> None:
    made = await create(store)
    store.reasons.cannot_pause = lambda runner_id: runner_id == "r1"
    await pause(store, made.id)
    assert (await waiting(store, made.id)).endswith("it cannot pause")
    await suspend(store, made.id)
    assert (await waiting(store, made.id)).endswith("Z")
    [found] = await store.find_requests(RequestFilter())
    assert found.waiting == await waiting(store, made.id)
    await store.end_pause(made.id)
    assert await waiting(store, made.id) == ""


async def test_a_stop_ends_a_pause(store: Store) -> None:
    running, suspended = await create(store), await create(store)
    await pause(store, running.id)
    assert await store.request_stop(running.id)
    with pytest.raises(FailedPreconditionError) as caught:
        await pause(store, running.id)
    assert caught.value.reason == "WRONG_STATE"
    await suspend(store, running.id)
    assert await waiting_ids(store, State.SUSPENDED) == [running.id]
    assert await store.assign(running.id, OTHER_RUNNER, expected_state=State.SUSPENDED) is None
    assert await state_of(store, running.id) is State.STOPPED
    await pause(store, suspended.id)
    await suspend(store, suspended.id)
    assert await store.stop_unassigned(suspended.id)
    with pytest.raises(FailedPreconditionError):
        await store.end_pause(suspended.id)


async def test_a_request_that_ends_is_no_longer_paused(store: Store) -> None:
    made = await create(store)
    await pause(store, made.id)
    assert await store.apply_reports("r1", [a_report(made.id, ends=State.COMPLETE)]) == []
    for call in (pause(store, made.id), store.end_pause(made.id)):
        with pytest.raises(FailedPreconditionError) as caught:
            await call
        assert caught.value.reason == "WRONG_STATE"


async def test_a_paused_request_that_an_original_has_ended_cannot_be_resumed(store: Store) -> None:
    made = await create(store)
    await pause(store, made.id)
    with store._engine.begin() as connection:
        connection.execute(
            update(requests).where(requests.c.request_id == made.id).values(state=State.COMPLETE)
        )
    with pytest.raises(FailedPreconditionError) as caught:
        await store.end_pause(made.id)
    assert caught.value.reason == "WRONG_STATE"
    assert await waiting(store, made.id) == ""


async def test_only_requests_that_exist_can_be_paused_and_resumed(store: Store) -> None:
    for call in (pause(store, UNKNOWN), store.end_pause(UNKNOWN)):
        with pytest.raises(NotFoundError):
            await call


async def test_a_request_that_an_original_runs_cannot_be_paused(store: Store) -> None:
    made = await create(store)
    await suspend(store, made.id)
    await store._writer.write(_RunByOriginal(made.id))
    with pytest.raises(FailedPreconditionError) as caught:
        await pause(store, made.id)
    assert caught.value.reason == "CANNOT_PAUSE"
