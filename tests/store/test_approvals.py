"""Approvals in the database: openings, decisions of people at once, deadlines, and what is deleted when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import func, select, update

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.state import State
from spincycle_grpc.v1.approval_pb2 import (
    APPROVAL_RESULT_APPROVED,
    APPROVAL_RESULT_REJECTED,
    APPROVAL_RESULT_TIMED_OUT,
    Approval,
    ApprovalResult,
    OpenedApproval,
    PendingApproval,
)
from spincycle_grpc.v1.audit_pb2 import AuditFilter
from spincycle_grpc.v1.notification_pb2 import NotifiedApproval
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, ChainReport
from spincycle_grpc.wire import decode
from spincycle_server.capabilities import APPROVAL, FINALLY, Requirement
from spincycle_server.store import Store, approval_rows
from spincycle_server.store.approval_rows import WaitKey
from spincycle_server.store.approvals import Decider
from spincycle_server.store.audit import event_row
from spincycle_server.store.schema import approval_decisions, approvals
from tests.store.age import make_older
from tests.store.samples import RUNNER, a_chain, a_log_entry, a_report, a_request, a_suspended_chain
from tests.store.test_audit import an_event

JOB = "appr"
NEEDS = Requirement(frozenset({"noop"}), features=frozenset({APPROVAL}))
ANN = Decider("ann", frozenset({"dba"}), is_admin=False)
BOB = Decider("bob", frozenset({"dba", "lead"}), is_admin=False)
EVE = Decider("eve", frozenset({"dev"}), is_admin=False)
ROOT = Decider("root", frozenset(), is_admin=True)
FINCH = Decider("finch", frozenset({"dba"}), is_admin=True)


async def expire(store: Store, request_id: str, job_id: str = JOB) -> None:
    """Lets the time of a request's approval be over."""
    one = (approvals.c.request_id == request_id) & (approvals.c.job_id == job_id)
    await make_older(store, request_id, lambda now: update(approvals).where(one).values(deadline=now - 1))


def an_opening(
    number: int = 1, *, tries: str = "1", people: int = 1, job: str = JOB, by_requester: bool = False
) -> OpenedApproval:
    what = Approval(roles=["dba"], approvals=people, message="go?", timeout="24h", by_requester=by_requester)
    opened = OpenedApproval(job_id=job, sequence_tries=tries, name="permit", approval=what)
    setattr(opened, "try", number)
    return opened


async def created(store: Store) -> str:
    """Creates a request that the runner r1 has. Its user is finch."""
    request = a_request(user="finch")
    await store.create_request(
        request, CreateRequest(type=request.type), a_chain(request.id), RUNNER, requirement=NEEDS
    )
    return request.id


async def report(store: Store, request_id: str, *opened: OpenedApproval, epoch: int = 1) -> None:
    message = ChainReport(assignment=Assignment(request_id=request_id, epoch=epoch), opened=opened)
    assert await store.apply_reports("r1", [message]) == []


async def opened(store: Store, **options: Any) -> str:
    request_id = await created(store)
    await report(store, request_id, an_opening(**options))
    return request_id


async def decide(
    store: Store, request_id: str, who: Decider, *, approved: bool = True, job: str = "", number: int = 0
) -> PendingApproval:
    return await store.approvals.decide(request_id, job, number, who, "why", approved=approved)


async def reason_of(store: Store, request_id: str, who: Decider, **options: Any) -> str:
    with pytest.raises(SpinCycleError) as caught:
        await decide(store, request_id, who, **options)
    return caught.value.reason


async def waiting(store: Store, request_id: str) -> list[PendingApproval]:
    return list((await store.get_request(request_id, with_job_chain=False)).approvals)


async def results(store: Store, request_id: str, number: int = 1) -> list[ApprovalResult.ValueType]:
    """Returns the results that the runner is told."""
    assignment = Assignment(request_id=request_id, epoch=3)
    outcomes = await store.approvals.outcomes({WaitKey(request_id, JOB, number): assignment})
    assert all(one.epoch == 3 for one in outcomes)
    return [one.result for one in outcomes]


async def test_a_call_reads_only_the_approvals_that_it_is_about(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = await created(store)
    jobs = [f"j{number:03}" for number in range(450)]
    await report(store, request_id, *(an_opening(job=job, people=2) for job in jobs))
    other = await opened(store, people=2)
    read: list[WaitKey] = []
    one_read = approval_rows._stored

    def counted(row: Any) -> approval_rows.StoredApproval:
        found = one_read(row)
        read.append(found.key)
        return found

    monkeypatch.setattr(approval_rows, "_stored", counted)
    assert (await decide(store, request_id, ANN, job=jobs[7])).job_id == jobs[7]
    ended = await decide(store, request_id, BOB, job=jobs[7])
    assert [one.user for one in ended.decisions] == ["ann", "bob"]
    assert {key.job_id for key in read} == {jobs[7]}
    assert await reason_of(store, request_id, ANN, job="ä" * 2000) == "APPROVAL_NOT_OPEN"
    assert await reason_of(store, request_id, ANN) == "AMBIGUOUS_APPROVAL"
    assert len(set(read)) < 20
    read.clear()
    await report(store, request_id, an_opening(2, job=jobs[8]))
    assert {key.job_id for key in read} == {jobs[8]}
    await decide(store, request_id, ROOT, job=jobs[449], approved=False)
    await decide(store, other, ROOT, approved=False)
    read.clear()
    waits = {WaitKey(request_id, job, 1): Assignment(request_id=request_id) for job in jobs}
    waits[WaitKey(other, JOB, 1)] = Assignment(request_id=other)
    outcomes = await store.approvals.outcomes(waits)
    ids = {(one.request_id, one.job_id, len(one.decisions)) for one in outcomes}
    assert ids == {(request_id, jobs[7], 2), (request_id, jobs[449], 1), (other, JOB, 1)}
    assert len(read) == 3
    assert len(await store.approvals.waiting(1000)) == 449


async def test_the_deadline_of_one_approval_leaves_the_others_open(store: Store) -> None:
    request_id = await created(store)
    await report(store, request_id, an_opening(job="late"), an_opening())
    await expire(store, request_id, "late")
    waits = {WaitKey(request_id, job, 1): Assignment() for job in ("late", JOB)}
    outcomes = await store.approvals.outcomes(waits)
    assert [(one.job_id, one.result) for one in outcomes] == [("late", APPROVAL_RESULT_TIMED_OUT)]
    assert (await decide(store, request_id, ANN)).job_id == JOB
    repeated = await decide(store, request_id, ANN, job=JOB)
    assert (repeated.job_id, repeated.result) == (JOB, APPROVAL_RESULT_APPROVED)


async def test_an_approval_that_nobody_has_decided_in_time_is_not_listed(store: Store) -> None:
    request_id, other = await opened(store), await opened(store)
    await expire(store, request_id)
    assert not await waiting(store, request_id)
    assert [one.request_id for one in await store.approvals.waiting(10)] == [other]


async def test_a_repeated_opening_changes_nothing(store: Store) -> None:
    request_id = await opened(store, people=2)
    (before,) = await waiting(store, request_id)
    await decide(store, request_id, ANN)
    await report(store, request_id, an_opening(people=2))
    (after,) = await waiting(store, request_id)
    assert (after.opened_at, after.deadline) == (before.opened_at, before.deadline)
    assert [one.user for one in after.decisions] == ["ann"]
    assert (before.deadline.seconds - before.opened_at.seconds) == 86_400
    assert (before.requester, list(before.path), before.approval.message) == ("finch", ["permit"], "go?")


async def test_a_job_asks_anew_under_its_number_if_a_sequence_has_begun_another_try(store: Store) -> None:
    request_id = await opened(store, people=2)
    await decide(store, request_id, ANN)
    await report(store, request_id, an_opening(people=2, tries="2"))
    assert not (await waiting(store, request_id))[0].decisions
    await decide(store, request_id, ANN)
    assert (await decide(store, request_id, BOB)).result == APPROVAL_RESULT_APPROVED
    long = ".".join(["10"] * 100)
    await report(store, request_id, an_opening(people=2, tries=long))
    assert await results(store, request_id) == []
    await decide(store, request_id, ROOT, approved=False)
    await report(store, request_id, an_opening(people=2, tries=long))
    assert await results(store, request_id) == [APPROVAL_RESULT_REJECTED]


async def test_who_may_decide(store: Store) -> None:
    request_id = await opened(store, people=2)
    assert await reason_of(store, request_id, EVE) == "NOT_AN_APPROVER"
    assert await reason_of(store, request_id, FINCH) == "OWN_REQUEST"
    await decide(store, request_id, ROOT)
    assert (await decide(store, request_id, ANN)).result == APPROVAL_RESULT_APPROVED
    by_finch = await opened(store, by_requester=True)
    assert (await decide(store, by_finch, FINCH)).result == APPROVAL_RESULT_APPROVED


async def test_each_person_counts_once_and_may_change_to_a_rejection(store: Store) -> None:
    request_id = await opened(store, people=2)
    event = event_row(an_event(request_id=request_id, operation="RequestManager.Approve"))
    for _ in range(2):
        await store.approvals.decide(request_id, "", 0, ANN, "fine", approved=True, event=event)
    page = await store.list_audit_events(AuditFilter(request_id=request_id))
    assert [one.detail for one in page.events] == [f"job {JOB} (permit): fine"]
    assert (await decide(store, request_id, ANN, approved=False)).result == APPROVAL_RESULT_REJECTED
    assert await results(store, request_id) == [APPROVAL_RESULT_REJECTED]
    assert await reason_of(store, request_id, ANN) == "APPROVAL_NOT_OPEN"
    repeated = await decide(store, request_id, ANN, approved=False)
    assert [one.approved for one in repeated.decisions] == [False]


async def test_two_people_decide_at_once(store: Store) -> None:
    request_id = await opened(store, people=2)
    decided = await asyncio.gather(decide(store, request_id, ANN), decide(store, request_id, BOB))
    assert sorted(one.result for one in decided) == [0, APPROVAL_RESULT_APPROVED]
    either = await opened(store)
    answers = await asyncio.gather(
        decide(store, either, ANN), decide(store, either, BOB, approved=False), return_exceptions=True
    )
    assert sum(isinstance(one, SpinCycleError) for one in answers) == 1
    assert len(await results(store, either)) == 1


async def test_a_deadline_ends_a_wait(store: Store) -> None:
    request_id, other = await opened(store), await opened(store)
    await expire(store, request_id)
    assert await reason_of(store, request_id, ANN) == "APPROVAL_NOT_OPEN"
    assert await results(store, request_id) == [APPROVAL_RESULT_TIMED_OUT]
    assert await results(store, request_id) == [APPROVAL_RESULT_TIMED_OUT]
    assert await results(store, other) == []
    assert not await waiting(store, request_id)
    assert [one.request_id for one in await store.approvals.waiting(10)] == [other]


async def test_the_end_of_the_try_ends_the_wait(store: Store) -> None:
    request_id = await opened(store)
    entry = a_log_entry(request_id, job_id=JOB, state=State.STOPPED)
    message = a_report(request_id, entry)
    message.tries[0].is_approval = True
    assert await store.apply_reports("r1", [message]) == []
    assert await reason_of(store, request_id, ANN) == "APPROVAL_NOT_OPEN"
    assert not await waiting(store, request_id)
    assert await results(store, request_id) == []
    await report(store, request_id, an_opening(2, tries="2"))
    assert await reason_of(store, request_id, ANN, number=1) == "APPROVAL_NOT_OPEN"
    assert (await decide(store, request_id, ANN, number=2)).result == APPROVAL_RESULT_APPROVED
    assert await results(store, request_id, 2) == [APPROVAL_RESULT_APPROVED]


async def test_a_request_with_several_approvals_needs_the_job(store: Store) -> None:
    request_id = await created(store)
    assert await reason_of(store, request_id, ANN) == "APPROVAL_NOT_OPEN"
    await report(store, request_id, an_opening(), an_opening(job="othr"))
    assert await reason_of(store, request_id, ANN) == "AMBIGUOUS_APPROVAL"
    assert await reason_of(store, request_id, ANN, job="none") == "APPROVAL_NOT_OPEN"
    await decide(store, request_id, ANN, job="othr")
    assert (await decide(store, request_id, ANN)).job_id == JOB
    assert await reason_of(store, "0" * 20, ANN) == "REQUEST_NOT_FOUND"


async def test_a_request_that_is_stopped_or_has_ended_waits_for_nobody(store: Store) -> None:
    request_id = await opened(store)
    await store.request_stop(request_id)
    assert await reason_of(store, request_id, ANN) == "APPROVAL_NOT_OPEN"
    assert await store.apply_reports("r1", [a_report(request_id, ends=State.STOPPED)]) == []
    assert await reason_of(store, request_id, ANN) == "APPROVAL_NOT_OPEN"
    assert not await store.approvals.waiting(10)


async def test_a_request_that_only_runs_finally_nodes_waits_for_nobody(store: Store) -> None:
    """The runner had shut down when the request was stopped, so no runner ends the wait."""
    request = a_request(user="finch")
    needs = Requirement(frozenset({"noop"}), features=frozenset({APPROVAL, FINALLY}))
    message = CreateRequest(type=request.type)
    await store.create_request(request, message, a_chain(request.id), RUNNER, requirement=needs)
    await report(store, request.id, an_opening())
    assert await store.apply_reports("r1", [a_report(request.id, ends=a_suspended_chain(request.id))]) == []
    assert len(await store.approvals.waiting(10)) == 1
    await store.stop_unassigned(request.id)
    await store.assign(request.id, RUNNER, expected_state=State.SUSPENDED)
    assert not await store.approvals.waiting(10)
    assert not await waiting(store, request.id)
    assert await reason_of(store, request.id, ANN) == "APPROVAL_NOT_OPEN"


async def test_an_opening_that_cannot_be_stored_or_is_stale_is_refused(store: Store) -> None:
    request_id = await created(store)
    bad = an_opening()
    bad.approval.timeout = "soon"
    for opening, epoch in ((bad, 1), (an_opening(), 2)):
        message = ChainReport(assignment=Assignment(request_id=request_id, epoch=epoch), opened=[opening])
        assert len(await store.apply_reports("r1", [message])) == 1
    assert not await waiting(store, request_id)


async def test_plain_requests_have_no_rows(store: Store) -> None:
    request_id = await created(store)
    assert await store.apply_reports("r1", [a_report(request_id, a_log_entry(request_id))]) == []
    with store._engine.connect() as connection:
        for table in (approvals, approval_decisions):
            assert connection.scalar(select(func.count()).select_from(table)) == 0


class _Everything:
    """Subscriptions of a target that wants all events."""

    def wanted_by(self, event: str, request_type: str) -> Sequence[str]:
        return ["ops"]


async def test_each_opening_is_delivered_once_with_its_message(store: Store) -> None:
    store.notify(_Everything(), lambda _: None)
    request_id = await created(store)
    await report(store, request_id, an_opening())
    await report(store, request_id, an_opening())
    (due,) = await store.deliveries.due("ops", 10)
    assert due.occurrence[:4] == ("approval-wanted", "stop-host", request_id, State.RUNNING)
    assert due.occurrence.detail is not None
    content = decode(due.occurrence.detail, NotifiedApproval)
    assert (content.job_id, content.path, content.message) == (JOB, "permit", "go?")
    await report(store, request_id, an_opening(tries="2"))
    assert len(await store.deliveries.due("ops", 10)) == 2
