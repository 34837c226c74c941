"""The rows of approvals and of the decisions about them: reads, and the messages that they stand for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Table, and_, func, or_, select
from sqlalchemy.engine import Connection

from spincycle_grpc.state import UNFINISHED_STATES
from spincycle_grpc.v1.approval_pb2 import ApprovalDecision, ApprovalOutcome, OpenedApproval, PendingApproval
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_grpc.wire import decode
from spincycle_server.database.chunks import in_chunks
from spincycle_server.database.clock import now_expression
from spincycle_server.store.rows import set_microseconds
from spincycle_server.store.schema import JOB_ID, approval_decisions, approvals, requests

_KEYS_AT_ONCE = 200
"""The most approvals that one statement selects by their keys."""

WAITING = 0
"""The result of an approval that a job waits for: APPROVAL_RESULT_UNKNOWN."""

_IS_UNDECIDED = approvals.c.result == WAITING


class WaitKey(NamedTuple):
    """The key of an approval."""

    request_id: str
    job_id: str
    number: int


@dataclass(slots=True)
class StoredApproval:
    """A row of `approvals` with its decisions.

    Attributes:
        key: Its key.
        request_type: The type of the request.
        requester: The user who created the request, or "".
        opened: What the runner reported.
        opened_at: Since when the job waits, in microseconds by the database's clock.
        deadline: When the wait ends without a decision.
        result: An ApprovalResult; WAITING while the job waits.
        decisions: The decisions, in the order in which they were made.
    """

    key: WaitKey
    request_type: str
    requester: str
    opened: OpenedApproval
    opened_at: int
    deadline: int
    result: int
    decisions: list[ApprovalDecision] = field(default_factory=list)

    @property
    def is_waiting(self) -> bool:
        """Whether nothing has ended the wait. Its deadline may have passed."""
        return self.result == WAITING

    def pending(self) -> PendingApproval:
        """Returns the message for users."""
        message = PendingApproval(
            request_id=self.key.request_id,
            request_type=self.request_type,
            requester=self.requester,
            job_id=self.key.job_id,
            path=self.opened.path or (self.opened.name,),
            approval=self.opened.approval,
            decisions=self.decisions,
            result=self.result,  # type: ignore[arg-type]
        )
        setattr(message, "try", self.key.number)  # `try` is a keyword in Python
        set_microseconds(message.opened_at, self.opened_at)
        set_microseconds(message.deadline, self.deadline)
        return message

    def outcome(self, assignment: Assignment) -> ApprovalOutcome:
        """Returns the message for the runner."""
        message = ApprovalOutcome(
            request_id=self.key.request_id,
            epoch=assignment.epoch,
            job_id=self.key.job_id,
            result=self.result,  # type: ignore[arg-type]
            decisions=self.decisions,
        )
        setattr(message, "try", self.key.number)
        set_microseconds(message.opened_at, self.opened_at)
        return message


def _is_waiting(connection: Connection) -> ColumnElement[bool]:
    """Returns the condition for approvals that requests wait for.

    A request that ended without a runner leaves its rows unchanged, and so does one without a runner of which
    only `finally` parts still run, and a deadline that passed while no runner had the request.
    """
    return and_(
        _IS_UNDECIDED,
        approvals.c.deadline > now_expression(connection),
        requests.c.state.in_(UNFINISHED_STATES),
        requests.c.ending.is_(None),
    )


def approvals_of(connection: Connection, request_ids: Collection[str]) -> list[StoredApproval]:
    """Returns the approvals that some requests wait for, the oldest first."""
    found: list[StoredApproval] = []
    for some in in_chunks(sorted(request_ids)):
        is_among = approvals.c.request_id.in_(some)
        found += _stored_approvals(connection, is_among, _is_waiting(connection))
    return found


def waiting_approvals(connection: Connection, limit: int) -> list[StoredApproval]:
    """Returns the approvals that requests wait for, the oldest first, up to a limit."""
    return _stored_approvals(connection, _is_waiting(connection), limit=limit)


def ended_waits(connection: Connection, keys: Collection[WaitKey]) -> list[StoredApproval]:
    """Returns the approvals with the given keys that have ended, or whose time is over, the oldest first.

    A runner asks again and again about all that its chains wait for, so the database leaves out the others.
    """
    is_over = or_(~_IS_UNDECIDED, approvals.c.deadline <= now_expression(connection))
    return _with_keys(connection, keys, is_over)


def approvals_with(connection: Connection, keys: Collection[WaitKey]) -> list[StoredApproval]:
    """Returns the approvals with the given keys that exist, the oldest first."""
    return _with_keys(connection, keys)


def approvals_of_job(connection: Connection, request_id: str, job_id: str) -> list[StoredApproval]:
    """Returns the approvals of all tries of a job, the oldest first."""
    if not JOB_ID.fullmatch(job_id):  # The column cannot hold it.
        return []
    return _stored_approvals(connection, approvals.c.request_id == request_id, approvals.c.job_id == job_id)


def approvals_to_choose(connection: Connection, request_id: str, limit: int) -> list[StoredApproval]:
    """Returns the approvals that a request waits for, the oldest first, up to a limit.

    If it waits for none, it returns those that opened last.
    """
    is_of = approvals.c.request_id == request_id
    found = _stored_approvals(connection, is_of, _IS_UNDECIDED, limit=limit)
    if found:
        return found
    last = select(func.max(approvals.c.opened_at)).where(is_of).scalar_subquery()
    return _stored_approvals(connection, is_of, approvals.c.opened_at == last)


def overdue_approvals(connection: Connection, request_ids: Sequence[str], now: int) -> list[StoredApproval]:
    """Returns the approvals of some requests that nobody has decided by their deadline, the oldest first."""
    found: list[StoredApproval] = []
    for some in in_chunks(request_ids):
        is_among = approvals.c.request_id.in_(some)
        found += _stored_approvals(connection, is_among, _IS_UNDECIDED, approvals.c.deadline <= now)
    return found


def _with_keys(
    connection: Connection, keys: Collection[WaitKey], *conditions: ColumnElement[bool]
) -> list[StoredApproval]:
    found: list[StoredApproval] = []
    for some, are_some in _chunks(approvals, keys):
        found += (one for one in _stored_approvals(connection, are_some, *conditions) if one.key in some)
    return found


def _chunks(
    table: Table, keys: Iterable[WaitKey]
) -> Iterator[tuple[Collection[WaitKey], ColumnElement[bool]]]:
    """Yields the keys in chunks, each with a condition for rows of a table.

    The condition holds for the rows with these keys, and for other tries of their jobs.
    """
    for some in in_chunks(sorted(keys), _KEYS_AT_ONCE):
        by_request = (
            and_(
                table.c.request_id == request_id,
                table.c.job_id.in_(sorted({key.job_id for key in of_request})),
            )
            for request_id, of_request in groupby(some, attrgetter("request_id"))
        )
        yield frozenset(some), or_(*by_request)


def _stored_approvals(
    connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None
) -> list[StoredApproval]:
    """Returns the approvals that meet all conditions, with their decisions, the oldest first."""
    query = (
        select(approvals, requests.c.type, requests.c.user)
        .join(requests, requests.c.request_id == approvals.c.request_id)
        .where(*conditions)
        .order_by(approvals.c.opened_at, approvals.c.request_id, approvals.c.job_id, approvals.c["try"])
    )
    found = [
        _stored(row._mapping) for row in connection.execute(query if limit is None else query.limit(limit))
    ]
    _add_decisions(connection, found)
    return found


def _stored(row: Any) -> StoredApproval:
    return StoredApproval(
        WaitKey(row["request_id"], row["job_id"], row["try"]),
        row["type"],
        row["user"] or "",
        decode(row["body"], OpenedApproval),
        row["opened_at"],
        row["deadline"],
        row["result"],
    )


def _add_decisions(connection: Connection, found: Sequence[StoredApproval]) -> None:
    by_key = {one.key: one for one in found}
    for _, are_some in _chunks(approval_decisions, by_key):
        query = (
            select(approval_decisions)
            .where(are_some)
            .order_by(approval_decisions.c.decided_at, approval_decisions.c.user)
        )
        for row in connection.execute(query):
            values = row._mapping
            one = by_key.get(WaitKey(row.request_id, row.job_id, values["try"]))
            if one is not None:
                one.decisions.append(
                    decision_of(row.user, row.comment, row.decided_at, approved=row.approved)
                )


def decision_of(user: str, comment: str, at: int, *, approved: bool) -> ApprovalDecision:
    """Returns the message of a decision. The time is in microseconds."""
    decision = ApprovalDecision(user=user, approved=approved, comment=comment)
    set_microseconds(decision.decided_at, at)
    return decision


def keys_of(assignments: Iterable[Assignment]) -> dict[WaitKey, Assignment]:
    """Returns the approvals that chains wait for, as their runner lists them, each with its assignment."""
    return {
        WaitKey(one.request_id, key.job_id, getattr(key, "try")): one
        for one in assignments
        for key in one.approvals
    }
