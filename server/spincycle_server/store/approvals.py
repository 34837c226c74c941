"""Approvals: their opening, the decisions about them, and their end.

All changes lock the row of the request, so two people who decide at once do so one after the other, and the
report of a runner comes before or after them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar

from sqlalchemy import Delete, and_, bindparam, delete, insert, update
from sqlalchemy.engine import Connection

from spincycle_grpc.duration import parse_duration
from spincycle_grpc.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    PermissionDeniedError,
    SpinCycleError,
)
from spincycle_grpc.job_paths import path_text
from spincycle_grpc.state import UNFINISHED_STATES, State
from spincycle_grpc.v1.approval_pb2 import (
    APPROVAL_RESULT_APPROVED,
    APPROVAL_RESULT_ENDED,
    APPROVAL_RESULT_REJECTED,
    APPROVAL_RESULT_TIMED_OUT,
    Approval,
    ApprovalResult,
    OpenedApproval,
    PendingApproval,
)
from spincycle_grpc.v1.notification_pb2 import NotifiedApproval
from spincycle_grpc.wire import encode
from spincycle_server.database.clock import database_now
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store.approval_rows import (
    WAITING,
    StoredApproval,
    WaitKey,
    approvals_of_job,
    approvals_to_choose,
    approvals_with,
    decision_of,
    overdue_approvals,
)
from spincycle_server.store.audit import EventRow
from spincycle_server.store.deliveries import APPROVAL_WANTED, Occurrence
from spincycle_server.store.errors import not_found
from spincycle_server.store.request_rows import RequestRows
from spincycle_server.store.schema import (
    JOB_ID,
    MAX_SEQUENCE_TRIES,
    MAX_TEXT,
    MAX_TRY,
    approval_decisions,
    approvals,
)
from spincycle_server.store.write import Write
from spincycle_server.utc_text import utc_text

_MOST_NAMED = 10
"""The most jobs that an error names."""

_RESULT_TEXTS: Mapping[int, str] = {
    APPROVAL_RESULT_APPROVED: "it was approved",
    APPROVAL_RESULT_REJECTED: "it was rejected",
    APPROVAL_RESULT_TIMED_OUT: "its deadline has passed",
    APPROVAL_RESULT_ENDED: "the job ended before",
}

_KEY = and_(
    approvals.c.request_id == bindparam("key_request"),
    approvals.c.job_id == bindparam("key_job"),
    approvals.c["try"] == bindparam("key_try"),
)
_END = RowStatement(lambda _: update(approvals).where(_KEY).values(result=bindparam("new_result")))
_END_WAITING = RowStatement(
    lambda _: (
        update(approvals)
        .where(_KEY, approvals.c.result == bindparam("old_result"))
        .values(result=bindparam("new_result"))
    )
)
_REOPEN = RowStatement(
    lambda _: (
        update(approvals)
        .where(_KEY)
        .values(
            sequence_tries=bindparam("new_sequence_tries"),
            body=bindparam("new_body"),
            opened_at=bindparam("new_opened_at"),
            deadline=bindparam("new_deadline"),
            result=bindparam("new_result"),
        )
    )
)
_INSERT = RowStatement(lambda _: insert(approvals))
_INSERT_DECISION = RowStatement(lambda _: insert(approval_decisions))


@dataclass(frozen=True, slots=True)
class Decider:
    """Who decides.

    Attributes:
        name: The name of the user.
        roles: The user's roles.
        is_admin: Whether one of them is an admin role.
    """

    name: str
    roles: frozenset[str]
    is_admin: bool

    @property
    def stored_name(self) -> str:
        """The name as the database has it: its beginning if it is long."""
        return self.name[:MAX_TEXT]

    def refusal(self, approval: Approval, requester: str) -> str:
        """Returns the reason why the user may not decide; "" if the user may.

        Args:
            approval: What is asked.
            requester: The user who created the request, as the database has it.
        """
        if not self.name or (not self.is_admin and self.roles.isdisjoint(approval.roles)):
            return "NOT_AN_APPROVER"
        if requester and self.stored_name == requester and not approval.by_requester:
            return "OWN_REQUEST"
        return ""

    def may_decide(self, one: PendingApproval) -> bool:
        """Returns whether the user may decide about an approval that a request waits for, and has not yet."""
        if one.result or any(made.user == self.stored_name for made in one.decisions):
            return False
        return not self.refusal(one.approval, one.requester)


def is_valid_opening(opened: OpenedApproval) -> bool:
    """Returns whether the report of an approval can be stored."""
    try:
        timeout = parse_duration(opened.approval.timeout)
    except ValueError:
        return False
    return bool(
        JOB_ID.fullmatch(opened.job_id)
        and 0 < getattr(opened, "try") <= MAX_TRY
        and timeout > 0
        and opened.approval.roles
        and opened.approval.approvals
    )


def approvals_opened(
    transaction: Transaction, requests: RequestRows, opened: Sequence[tuple[str, OpenedApproval]]
) -> None:
    """Stores approvals for which jobs have begun to wait. Their requests must be locked.

    A repeated report changes nothing. A job that asks anew under the same number, because its runner died and
    a sequence has begun another try, loses the earlier decisions. All approvals open here, so what must
    happen with each opening belongs into this function.

    Args:
        transaction: The open transaction.
        requests: The rows of the requests.
        opened: The id of the request and the report of each.
    """
    if not opened:
        return
    reports = {WaitKey(request_id, one.job_id, getattr(one, "try")): one for request_id, one in opened}
    earlier = {one.key: one for one in approvals_with(transaction.connection, reports.keys())}
    now = database_now(transaction.connection)
    is_new = {key: key not in earlier for key in reports}
    rows = {
        key: _row(key, one, now)
        for key, one in reports.items()
        if is_new[key] or _tries_text(earlier[key].opened) != _tries_text(one)
    }
    transaction.change(_INSERT, [row for key, row in rows.items() if is_new[key]])
    transaction.events += [_wanted(requests, key, reports[key], now) for key in rows]
    anew = [key for key in rows if not is_new[key]]
    transaction.change(
        _REOPEN,
        [{**_parameters(key), **{f"new_{name}": rows[key][name] for name in _REOPENED}} for key in anew],
    )
    for key in anew:
        transaction.execute(_without_decisions(key))


def _wanted(requests: RequestRows, key: WaitKey, opened: OpenedApproval, now: int) -> Occurrence:
    """Returns what targets of notifications learn of an opening."""
    row = requests.get(key.request_id) or {"type": "", "state": State.RUNNING}
    detail = NotifiedApproval(
        job_id=key.job_id,
        path=path_text(opened.path) or opened.name,
        message=opened.approval.message,
    )
    return Occurrence(APPROVAL_WANTED, row["type"], key.request_id, row["state"], now, encode(detail))


_REOPENED = ("sequence_tries", "body", "opened_at", "deadline", "result")


def waits_ended(transaction: Transaction, keys: Iterable[WaitKey]) -> None:
    """Ends the waits of tries that have ended, if nothing has decided them. Their requests must be locked."""
    transaction.change(
        _END_WAITING,
        [{**_parameters(key), "old_result": WAITING, "new_result": APPROVAL_RESULT_ENDED} for key in keys],
    )


def _row(key: WaitKey, opened: OpenedApproval, now: int) -> dict[str, Any]:
    return {
        "request_id": key.request_id,
        "job_id": key.job_id,
        "try": key.number,
        "sequence_tries": _tries_text(opened),
        "body": encode(opened),
        "opened_at": now,
        "deadline": now + parse_duration(opened.approval.timeout) // 1000,
        "result": WAITING,
    }


def _tries_text(opened: OpenedApproval) -> str:
    text = opened.sequence_tries
    return text if len(text) <= MAX_SEQUENCE_TRIES else hashlib.sha256(text.encode()).hexdigest()


def _without_decisions(key: WaitKey) -> Delete:
    """Returns the statement that deletes the decisions about an approval."""
    return delete(approval_decisions).where(
        approval_decisions.c.request_id == key.request_id,
        approval_decisions.c.job_id == key.job_id,
        approval_decisions.c["try"] == key.number,
    )


def _parameters(key: WaitKey) -> dict[str, Any]:
    return {"key_request": key.request_id, "key_job": key.job_id, "key_try": key.number}


class _Rows:
    """The locked requests of some changes, and the approvals that the changes are about.

    Args:
        transaction: The open transaction.
        request_ids: The requests, which it locks.
        read: Reads the approvals; gets the database's time. It may return an approval more than once.
    """

    def __init__(
        self,
        transaction: Transaction,
        request_ids: Iterable[str],
        read: Callable[[Connection, int], Iterable[StoredApproval]],
    ) -> None:
        ids = sorted(set(request_ids))
        self.requests = RequestRows(transaction, ids)
        self.now = database_now(transaction.connection)
        self._transaction = transaction
        self._found: dict[str, list[StoredApproval]] = {one: [] for one in ids}
        by_key = {one.key: one for one in read(transaction.connection, self.now)}
        for one in sorted(by_key.values(), key=lambda found: (found.opened_at, found.key)):
            self._found[one.key.request_id].append(one)
        self._ended: list[StoredApproval] = []
        self._decisions: dict[tuple[WaitKey, str], dict[str, Any]] = {}

    def of(self, request_id: str) -> Sequence[StoredApproval]:
        return self._found[request_id]

    def decide(self, one: StoredApproval, decider: Decider, comment: str, *, approved: bool) -> None:
        user = decider.stored_name
        one.decisions = [made for made in one.decisions if made.user != user]
        one.decisions.append(decision_of(user, comment, self.now, approved=approved))
        self._decisions[one.key, user] = {
            "request_id": one.key.request_id,
            "job_id": one.key.job_id,
            "try": one.key.number,
            "user": user,
            "approved": approved,
            "comment": comment,
            "decided_at": self.now,
        }
        self.requests.change(one.key.request_id)

    def end(self, one: StoredApproval, result: ApprovalResult.ValueType) -> None:
        one.result = result
        self._ended.append(one)
        self.requests.change(one.key.request_id)

    def save(self) -> None:
        for key, user in self._decisions:
            self._transaction.execute(_without_decisions(key).where(approval_decisions.c.user == user))
        self._transaction.change(_INSERT_DECISION, list(self._decisions.values()))
        self._transaction.change(
            _END, [{**_parameters(one.key), "new_result": one.result} for one in self._ended]
        )
        self.requests.save()


@dataclass(slots=True)
class Decide(Write):
    """Stores the decision of a person. Result: the PendingApproval after it, or an error.

    A repeated decision changes nothing and has no audit event. A user who has approved can still
    reject while the job waits.
    """

    order: ClassVar[int] = 4
    request_id: str
    job_id: str
    number: int
    decider: Decider
    approved: bool
    comment: str
    event: EventRow | None = field(default=None)

    @property
    def request_ids(self) -> Iterable[str]:
        """The request."""
        return (self.request_id,)

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[Decide]) -> Sequence[Any]:
        """Locks the requests, lets each write decide in turn, and stores the decisions."""
        # An earlier write may end the wait that a later one would choose, so it finds others.
        limit = _MOST_NAMED + len(writes)
        rows = _Rows(
            transaction,
            (write.request_id for write in writes),
            lambda connection, _: chain.from_iterable(write._read(connection, limit) for write in writes),
        )
        results = [write._result(rows) for write in writes]
        rows.save()
        return results

    def _read(self, connection: Connection, limit: int) -> Iterable[StoredApproval]:
        """Reads the approvals that the caller may mean, few of those that the request waits for."""
        if self.job_id:
            return approvals_of_job(connection, self.request_id, self.job_id)
        return approvals_to_choose(connection, self.request_id, limit)

    def _result(self, rows: _Rows) -> PendingApproval | SpinCycleError:
        try:
            one = self._chosen(rows)
            self._check_decider(one)
            if not self._is_repeated(one):
                self._decide(rows, one)
        except SpinCycleError as error:
            return error
        return one.pending()

    def _chosen(self, rows: _Rows) -> StoredApproval:
        """Returns the approval that the caller means: the newest of the job, or the only one that waits."""
        row = rows.requests.get(self.request_id)
        if row is None:
            raise not_found(self.request_id)
        if row["state"] not in UNFINISHED_STATES:
            raise self._not_open(f"the request has ended with the state {State(row['state']).name}")
        if row["stop_requested"] or row["ending"] is not None:
            raise self._not_open("the request is being stopped")
        found = [one for one in rows.of(self.request_id) if self.job_id in ("", one.key.job_id)]
        waiting = [one for one in found if one.is_waiting]
        if not self.job_id and len(waiting) > 1:
            raise self._ambiguous(waiting)
        chosen = (waiting or found)[-1:]
        if not chosen:
            raise self._not_open(f"job {self.job_id} does not wait" if self.job_id else "no job waits")
        number = chosen[0].key.number
        if self.number not in (0, number):
            raise self._not_open(f"the job asks anew with try {number}: look at the request again")
        return chosen[0]

    def _check_decider(self, one: StoredApproval) -> None:
        reason = self.decider.refusal(one.opened.approval, one.requester)
        if not reason:
            return
        name = self.decider.name or "(unknown)"
        if reason == "OWN_REQUEST":
            why = f"caller {name} created request {self.request_id}: somebody else must decide about it"
        else:
            roles = ", ".join(sorted(one.opened.approval.roles))
            why = f"caller {name} may not decide about this approval: needs one of the roles: {roles}"
        raise PermissionDeniedError(why, reason=reason, request_id=self.request_id)

    def _is_repeated(self, one: StoredApproval) -> bool:
        user = self.decider.stored_name
        return any(made.user == user and made.approved == self.approved for made in one.decisions)

    def _decide(self, rows: _Rows, one: StoredApproval) -> None:
        if not one.is_waiting:
            raise self._not_open(_RESULT_TEXTS.get(one.result, "it has ended"))
        if one.deadline <= rows.now:
            raise self._not_open(f"its deadline passed at {utc_text(one.deadline)}")
        rows.decide(one, self.decider, self.comment, approved=self.approved)
        if self.event is not None:
            about = f"job {one.key.job_id} ({one.opened.name})"
            rows.requests.record({**self.event, "detail": f"{about}: {self.comment}".removesuffix(": ")})
        if not self.approved:
            rows.end(one, APPROVAL_RESULT_REJECTED)
        elif sum(made.approved for made in one.decisions) >= one.opened.approval.approvals:
            rows.end(one, APPROVAL_RESULT_APPROVED)

    def _not_open(self, why: str) -> FailedPreconditionError:
        return FailedPreconditionError(
            f"request {self.request_id} does not wait for this approval: {why}",
            reason="APPROVAL_NOT_OPEN",
            request_id=self.request_id,
        )

    def _ambiguous(self, waiting: Sequence[StoredApproval]) -> InvalidArgumentError:
        jobs = ", ".join(f"{one.key.job_id} ({one.opened.name})" for one in waiting[:_MOST_NAMED])
        return InvalidArgumentError(
            f"request {self.request_id} waits for several approvals: name one of the jobs {jobs}",
            reason="AMBIGUOUS_APPROVAL",
            request_id=self.request_id,
            field="job_id",
        )


@dataclass(slots=True)
class EndOverdue(Write):
    """Ends the waits of some requests whose time is over. Result: None."""

    order: ClassVar[int] = 4
    is_reserved: ClassVar[bool] = True
    request_ids: Sequence[str]

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[EndOverdue]) -> Sequence[None]:
        """Locks the requests, and looks at the time again."""
        request_ids = sorted({one for write in writes for one in write.request_ids})
        rows = _Rows(
            transaction, request_ids, lambda connection, now: overdue_approvals(connection, request_ids, now)
        )
        for request_id in request_ids:
            if rows.requests.get(request_id) is None:
                continue
            for one in rows.of(request_id):
                rows.end(one, APPROVAL_RESULT_TIMED_OUT)
        rows.save()
        return [None] * len(writes)
