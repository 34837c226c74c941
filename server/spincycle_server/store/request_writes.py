"""Writes to requests: made, assigned to runners, stopped, finished, suspended.

A change of state is compare-and-set: it looks at the state first, under a lock, and says whether
it happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import bindparam, delete, insert, select, update

from spincycle_grpc.errors import FailedPreconditionError, NotFoundError, SpinCycleError
from spincycle_grpc.state import State
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_server.database.clock import database_now
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store.group_commit import Write
from spincycle_server.store.idempotency import IdempotencyKey, claim_keys
from spincycle_server.store.schema import (
    request_archives,
    request_args,
    requests,
    runners,
    suspended_job_chains,
)

_INSERT_REQUEST = RowStatement(lambda _: insert(requests))
_INSERT_ARCHIVE = RowStatement(lambda _: insert(request_archives))
_INSERT_ARG = RowStatement(lambda _: insert(request_args))
_ROW_COLUMNS = (
    requests.c.request_id,
    requests.c.state,
    requests.c.epoch,
    requests.c.runner_id,
    requests.c.jr_url,
    requests.c.started_at,
    requests.c.finished_at,
    requests.c.finished_jobs,
    requests.c.stop_requested,
)
"""What may change of a request."""

_UPDATE = RowStatement(
    lambda _: (
        update(requests)
        .where(requests.c.request_id == bindparam("key"))
        .values(
            state=bindparam("new_state"),
            epoch=bindparam("new_epoch"),
            runner_id=bindparam("new_runner_id"),
            jr_url=bindparam("new_jr_url"),
            started_at=bindparam("new_started_at"),
            finished_at=bindparam("new_finished_at"),
            finished_jobs=bindparam("new_finished_jobs"),
            stop_requested=bindparam("new_stop_requested"),
            # MySQL's TIMESTAMP columns may be made to change with the row: this one never does.
            created_at=requests.c.created_at,
        )
    )
)
_DELETE_SUSPENDED = delete(suspended_job_chains).where(suspended_job_chains.c.request_id == bindparam("key"))
_DELETE_RESUMED = _DELETE_SUSPENDED.where(suspended_job_chains.c.is_dropped.is_(True))


def not_found(request_id: str) -> NotFoundError:
    """Returns the error for a request that does not exist."""
    return NotFoundError(f"request {request_id} not found", reason="REQUEST_NOT_FOUND", request_id=request_id)


def wrong_state(request_id: str, state: int, expected: State) -> FailedPreconditionError:
    """Returns the error for a request in a state that a write does not fit."""
    return FailedPreconditionError(
        f"request in state {State(state).name}, expected state {expected.name}",
        reason="WRONG_STATE",
        request_id=request_id,
    )


@dataclass(slots=True)
class CreateRequest(Write):
    """A new request, with its archive and perhaps its assignment. Result: None.

    With an idempotency key, the request is made only if the key has made none.
    """

    order: ClassVar[int] = 100  # Behind all that reads, so that it goes out with what the others change.
    request: Mapping[str, Any]
    archive: Mapping[str, Any]
    args: Sequence[Mapping[str, Any]]
    key: IdempotencyKey | None = None

    @classmethod
    def apply_all(
        cls, transaction: Transaction, writes: Sequence[CreateRequest]
    ) -> Sequence[SpinCycleError | None]:
        """One statement a table, and up to three more if there are keys."""
        results: list[SpinCycleError | None] = [None] * len(writes)
        keyed = [
            (index, (write.key, write.request["request_id"]))
            for index, write in enumerate(writes)
            if write.key is not None
        ]
        if keyed:
            refusals = claim_keys(transaction.connection, [claim for _, claim in keyed])
            for (index, _), refusal in zip(keyed, refusals, strict=True):
                results[index] = refusal
            writes = [write for write, refusal in zip(writes, results, strict=True) if refusal is None]
        if writes:
            cls._insert(transaction, writes)
        return results

    @classmethod
    def _insert(cls, transaction: Transaction, writes: Sequence[CreateRequest]) -> None:
        transaction.change(_INSERT_REQUEST, [write.request for write in writes])
        transaction.change(_INSERT_ARCHIVE, [write.archive for write in writes])
        transaction.change(_INSERT_ARG, [row for write in writes for row in write.args])


class RequestRows:
    """The rows of some requests, locked, changed in memory, and written back at the end."""

    def __init__(self, transaction: Transaction, request_ids: Iterable[str]) -> None:
        self._transaction = transaction
        query = (
            select(*_ROW_COLUMNS)
            .where(requests.c.request_id.in_(sorted(set(request_ids))))
            # Locks are taken in one order, or transactions block each other.
            .order_by(requests.c.request_id)
            .with_for_update()
        )
        self._rows: dict[str, dict[str, Any]] = {
            row.request_id: dict(row._mapping) for row in transaction.execute(query)
        }
        self._changed: dict[str, dict[str, Any]] = {}
        self._dropped: list[str] = []
        self._resumed: list[str] = []
        self._live_runners: dict[str, int] | None = None

    def get(self, request_id: str) -> Mapping[str, Any] | None:
        """Returns the row as it is now."""
        return self._rows.get(request_id)

    def live_runners(self) -> Mapping[str, int]:
        """Returns when the leases end that last, by the ids of the runners.

        Since it is read under the locks, no report of a runner that is renewed later can come before them.
        """
        if self._live_runners is None:
            query = select(runners.c.runner_id, runners.c.lease_expires_at).where(
                runners.c.lease_expires_at > database_now(self._transaction.connection)
            )
            self._live_runners = {
                row.runner_id: row.lease_expires_at for row in self._transaction.execute(query)
            }
        return self._live_runners

    def change(self, request_id: str, **values: Any) -> None:
        """Changes a row."""
        row = self._rows[request_id]
        row.update(values)
        self._changed[request_id] = row

    def drop_suspended(self, request_id: str, *, for_good: bool) -> None:
        """Drops the suspended chain of a request, if there is one.

        Args:
            request_id: The request.
            for_good: Whether the request has ended; if not, a chain that is to be kept is kept.
        """
        (self._dropped if for_good else self._resumed).append(request_id)

    def save(self) -> None:
        """Writes the changes."""
        if self._changed:
            self._transaction.change(
                _UPDATE,
                [
                    {
                        "key": row["request_id"],
                        "new_state": row["state"],
                        "new_epoch": row["epoch"],
                        "new_runner_id": row["runner_id"],
                        "new_jr_url": row["jr_url"],
                        "new_started_at": row["started_at"],
                        "new_finished_at": row["finished_at"],
                        "new_finished_jobs": row["finished_jobs"],
                        "new_stop_requested": row["stop_requested"],
                    }
                    for row in self._changed.values()
                ],
            )
        if self._dropped:
            self._transaction.execute(_DELETE_SUSPENDED, [{"key": key} for key in self._dropped])
        if self._resumed:
            self._transaction.execute(_DELETE_RESUMED, [{"key": key} for key in self._resumed])


def _end_unassigned(rows: RequestRows, request_id: str, state: State, now: int) -> None:
    """Ends a request that no runner has, and drops the suspended chain, if there is one."""
    rows.change(request_id, state=state, finished_at=now, jr_url=None)
    rows.drop_suspended(request_id, for_good=True)


class StateWrite(Write):
    """A change of one request's state, decided by what the row says."""

    request_id: str

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> Any:
        """Makes the change, or not. Returns the result, which may be a SpinCycleError."""
        raise NotImplementedError

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[StateWrite]) -> Sequence[Any]:
        """Reads all rows, decides for each write in turn, and writes back what changed."""
        rows = RequestRows(transaction, (write.request_id for write in writes))
        results: list[Any] = []
        for write in writes:
            row = rows.get(write.request_id)
            results.append(not_found(write.request_id) if row is None else write.change(rows, row))
        rows.save()
        return results


@dataclass(slots=True)
class Assign(StateWrite):
    """Gives a request to a runner. Result: the Assignment, or None if the request is not as expected.

    With an epoch, it must still have that assignment; without, any. One that is RUNNING is taken from its
    runner when that one is not alive, or, with a token, when that is its newest renewal: with it the runner
    said that it does not have the request.
    """

    order: ClassVar[int] = 2
    request_id: str
    runner: RunnerInfo
    expected_state: State
    expected_epoch: int | None
    now: int
    token: int | None = None

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> Assignment | None:
        """Counts the epoch up and sets the request RUNNING, or ends one that was to stop before."""
        if row["state"] != self.expected_state or self.expected_epoch not in (None, row["epoch"]):
            return None
        if self.expected_state == State.RUNNING and self.token != rows.live_runners().get(row["runner_id"]):
            return None
        if self.expected_state != State.RUNNING and row["stop_requested"]:
            _end_unassigned(rows, self.request_id, State.STOPPED, self.now)
            return None
        # One that an original suspended has run before, under no number: the first is that run's, so
        # that later ones are known to have a suspended chain behind them.
        epoch = row["epoch"] + 1 + (self.expected_state == State.SUSPENDED and row["epoch"] == 0)
        rows.change(
            self.request_id,
            state=State.RUNNING,
            epoch=epoch,
            runner_id=self.runner.runner_id,
            jr_url=self.runner.url,
            started_at=row["started_at"] or self.now,
        )
        if self.expected_state == State.RUNNING:  # A chain from before what is now lost is out of date.
            rows.drop_suspended(self.request_id, for_good=False)
        return Assignment(request_id=self.request_id, epoch=epoch)


@dataclass(slots=True)
class Unassign(StateWrite):
    """Takes a request from a runner that did not start it. Result: whether it happened.

    One that goes back to RUNNING has no runner, and is recovered.
    """

    order: ClassVar[int] = 3
    request_id: str
    epoch: int
    state_before: State

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> bool:
        """Sets the state that the request had before it was assigned."""
        if row["state"] != State.RUNNING or row["epoch"] != self.epoch:
            return False
        started_at = None if self.state_before == State.PENDING else row["started_at"]
        rows.change(
            self.request_id, state=self.state_before, runner_id=None, jr_url=None, started_at=started_at
        )
        return True


@dataclass(slots=True)
class StopUnassigned(StateWrite):
    """Stops a request that no runner has. Result: whether it happened."""

    order: ClassVar[int] = 4
    request_id: str
    now: int

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> bool:
        """Sets STOPPED and drops the suspended chain, if there is one."""
        if row["state"] not in (State.PENDING, State.SUSPENDED):
            return False
        _end_unassigned(rows, self.request_id, State.STOPPED, self.now)
        return True


@dataclass(slots=True)
class RequestStop(StateWrite):
    """Notes that a RUNNING request is to stop, whoever runs it. Result: whether it is RUNNING then.

    One without an assignment was started by an original Spin Cycle, whose runner is taken to be gone:
    it is STOPPED at once, or it would stay RUNNING for ever.
    """

    order: ClassVar[int] = 4
    request_id: str
    now: int

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> bool:
        """Sets the mark, or the state."""
        if row["state"] != State.RUNNING:
            return False
        if not row["epoch"]:
            rows.change(self.request_id, state=State.STOPPED, finished_at=self.now, jr_url=None)
            return False
        if not row["stop_requested"]:
            rows.change(self.request_id, stop_requested=True)
        return True


@dataclass(slots=True)
class DropSuspended(StateWrite):
    """Drops the suspended chain that an assignment resumed. Result: whether the assignment still stood."""

    order: ClassVar[int] = 3
    request_id: str
    epoch: int

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> bool:
        """Keeps the chain where the request has been suspended again meanwhile."""
        if row["state"] == State.SUSPENDED or row["epoch"] != self.epoch:
            return False
        rows.drop_suspended(self.request_id, for_good=False)
        return True


@dataclass(slots=True)
class FailSuspended(StateWrite):
    """Fails a request that nobody resumed since an assignment was suspended. Result: whether it happened."""

    order: ClassVar[int] = 4
    request_id: str
    epoch: int
    now: int

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> bool:
        """Sets FAIL and drops the suspended chain."""
        if row["state"] != State.SUSPENDED or row["epoch"] != self.epoch:
            return False
        _end_unassigned(rows, self.request_id, State.FAIL, self.now)
        return True


@dataclass(slots=True)
class Finish(StateWrite):
    """Sets the final state of a RUNNING request. Result: None.

    With an epoch, the request must still have that assignment; without, any.
    """

    order: ClassVar[int] = 5
    request_id: str
    state: State
    finished_at: int
    finished_jobs: int | None = None
    epoch: int | None = None

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> SpinCycleError | None:
        """Sets state, time and count."""
        if row["state"] != State.RUNNING or self.epoch not in (None, row["epoch"]):
            return wrong_state(self.request_id, row["state"], State.RUNNING)
        finished_jobs = row["finished_jobs"] if self.finished_jobs is None else self.finished_jobs
        rows.change(
            self.request_id,
            state=self.state,
            finished_at=self.finished_at,
            finished_jobs=finished_jobs,
            jr_url=None,
        )
        rows.drop_suspended(self.request_id, for_good=True)
        return None


@dataclass(slots=True)
class Progress(StateWrite):
    """Sets the number of finished jobs. Result: None."""

    order: ClassVar[int] = 6
    request_id: str
    finished_jobs: int

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> None:
        """Sets the count, whatever the state, as the original does."""
        rows.change(self.request_id, finished_jobs=self.finished_jobs)
