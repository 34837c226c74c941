"""Changes of a request's state: assign, unassign, stop, finish.

Each change is a compare-and-set: it locks the row, checks the state, and reports whether it happened.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.audit import EventRow
from spincycle_server.store.endings import end_after_finally, ending_of
from spincycle_server.store.errors import not_found, request_paused, wrong_state
from spincycle_server.store.request_rows import RequestRows
from spincycle_server.store.schema import ORIGINAL
from spincycle_server.store.write import Write


class StateWrite(Write):
    """A change of one request that depends on the request's row."""

    request_id: str

    @property
    def request_ids(self) -> Iterable[str]:
        """The request."""
        return (self.request_id,)

    @abstractmethod
    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> Any:
        """Changes the row if the change applies, and returns the result, which may be a SpinCycleError."""

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[StateWrite]) -> Sequence[Any]:
        """Reads all rows, lets each write decide in turn, and writes the changed rows back."""
        rows = RequestRows(transaction, (write.request_id for write in writes))
        results: list[Any] = []
        for write in writes:
            row = rows.get(write.request_id)
            results.append(not_found(write.request_id) if row is None else write.change(rows, row))
        rows.save()
        return results


def end_unassigned(rows: RequestRows, request_id: str, state: State, now: int) -> None:
    """Ends a request that is assigned to no runner, and drops its suspended chain, if it has one."""
    rows.change(request_id, state=state, finished_at=now, jr_url=None)
    rows.drop_suspended(request_id, for_good=True)


@dataclass(slots=True)
class Assign(StateWrite):
    """Assigns a request to a runner. Result: the Assignment, or None if the request is not as expected.

    If `expected_epoch` is given, the request must still have that assignment. A RUNNING request is taken
    over from its runner in two cases: the runner's lease has expired, or the runner reported that it does not
    have the request, and `token` is still its newest renewal.
    """

    order: ClassVar[int] = 2
    request_id: str
    runner: RunnerInfo
    expected_state: State
    expected_epoch: int | None
    now: int
    token: int | None = None
    event: EventRow | None = None

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> Assignment | None:
        """Increments the epoch and sets RUNNING, or sets STOPPED if a stop was requested before."""
        if row["state"] != self.expected_state or self.expected_epoch not in (None, row["epoch"]):
            return None
        if self.expected_state == State.RUNNING and self.token != rows.live_runners().get(row["runner_id"]):
            return None
        if self.expected_state != State.RUNNING and row["stop_requested"] and not _owes_finally(row):
            end_unassigned(rows, self.request_id, ending_of(row) or State.STOPPED, self.now)
            return None
        if self.expected_state != State.RUNNING and row["paused_at"] is not None:
            return None
        # A request that an original Spin Cycle suspended has run before without an epoch. That run gets epoch
        # 1, so that a later epoch always means that there may be a suspended chain.
        epoch = row["epoch"] + 1 + (self.expected_state == State.SUSPENDED and row["epoch"] == 0)
        is_suspect = self._is_suspect(rows, row)
        rows.change(
            self.request_id,
            state=State.RUNNING,
            epoch=epoch,
            runner_id=self.runner.runner_id,
            jr_url=self.runner.url,
            started_at=row["started_at"] or self.now,
            is_suspect=is_suspect,
        )
        if self.expected_state == State.RUNNING:
            # A suspended chain from before the lost assignment is out of date.
            rows.drop_suspended(self.request_id, for_good=False)
        rows.record(self.event)
        return Assignment(request_id=self.request_id, epoch=epoch, ending=_message_state(ending_of(row)))

    def _is_suspect(self, rows: RequestRows, row: Mapping[str, Any]) -> bool | None:
        """Returns whether the request is a suspect from now on, and counts the death of its runner."""
        if self.expected_state == State.RUNNING and self.token is None and row["runner_id"] is not None:
            rows.suspects.taken_over(self.request_id, row["runner_id"])
            return True
        if row["is_suspect"]:
            rows.suspects.assigned(self.request_id)
        is_suspect: bool | None = row["is_suspect"]
        return is_suspect


@dataclass(slots=True)
class Release(StateWrite):
    """Lets a PENDING request of an original wait for a runner. Result: whether it did not wait before.

    Result if the request is paused: an error.
    """

    order: ClassVar[int] = 2
    request_id: str
    event: EventRow | None = None

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> bool | SpinCycleError:
        """Removes the mark of the original."""
        if row["state"] == State.PENDING and row["paused_at"] is not None:
            return request_paused(self.request_id)
        if row["state"] != State.PENDING or row["runner_id"] != ORIGINAL:
            return False
        rows.change(self.request_id, runner_id=None)
        rows.record(self.event)
        return True


@dataclass(slots=True)
class Unassign(StateWrite):
    """Takes back an assignment that the runner did not start. Result: whether it happened.

    If `state_before` is RUNNING, the request then has no runner and is taken over.
    """

    order: ClassVar[int] = 3
    request_id: str
    epoch: int
    state_before: State

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> bool:
        """Restores the state from before the assignment."""
        if row["state"] != State.RUNNING or row["epoch"] != self.epoch:
            return False
        started_at = None if self.state_before == State.PENDING else row["started_at"]
        runner_id = ORIGINAL if self.state_before == State.SUSPENDED else None
        rows.change(
            self.request_id, state=self.state_before, runner_id=runner_id, jr_url=None, started_at=started_at
        )
        return True


def _message_state(state: State | None) -> state_pb2.State.ValueType:
    return state_pb2.STATE_UNKNOWN if state is None else state_pb2.State.ValueType(state.value)


def _owes_finally(row: Mapping[str, Any]) -> bool:
    """Whether `finally` parts of a request that is assigned to no runner may have to run before it ends."""
    return bool(row["has_finally"] and row["state"] == State.SUSPENDED and not row["skip_finally"])


class UnassignedStop(IntEnum):
    """The result of a StopUnassigned. Only NOT_UNASSIGNED is false."""

    NOT_UNASSIGNED = 0
    ENDED = 1
    FINALLY_RUNS = 2


@dataclass(slots=True)
class Stop(StateWrite):
    """Stops a request. If `is_repeated`, the same call has asked before."""

    order: ClassVar[int] = 4
    request_id: str
    now: int
    event: EventRow | None = None
    is_repeated: bool = False

    def mark(self, rows: RequestRows, row: Mapping[str, Any]) -> None:
        """Marks the request, which ends after its `finally` parts.

        It ends a pause, because otherwise no round would end the request.
        """
        rows.change(self.request_id, stop_requested=True)
        end_after_finally(rows, row, State.STOPPED)
        if row["paused_at"] is not None:
            rows.end_pause(self.request_id)


@dataclass(slots=True)
class StopUnassigned(Stop):
    """Stops a request that is assigned to no runner. Result: an UnassignedStop.

    If it may owe `finally` parts, a runner runs these first, also if it must FAIL already. A second stop ends
    it at once. It is none if `is_repeated`: then the same call has marked the request while a runner had it.
    """

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> UnassignedStop:
        """Sets a PENDING or SUSPENDED request STOPPED, or marks it."""
        if row["state"] not in (State.PENDING, State.SUSPENDED):
            return UnassignedStop.NOT_UNASSIGNED
        rows.record(self.event)
        if _owes_finally(row) and self.is_repeated:
            return UnassignedStop.FINALLY_RUNS
        if _owes_finally(row) and not row["stop_requested"]:
            self.mark(rows, row)
            rows.suspended_again(self.request_id)
            return UnassignedStop.FINALLY_RUNS
        end_unassigned(rows, self.request_id, ending_of(row) or State.STOPPED, self.now)
        return UnassignedStop.ENDED


class StopOutcome(IntEnum):
    """The result of a RequestStop. Only NOT_RUNNING is false."""

    NOT_RUNNING = 0
    RUNNING = 1
    RUN_BY_ORIGINAL = 2
    FINALLY_SKIPPED = 3


def is_run_by_original(row: Mapping[str, Any]) -> bool:
    """Whether a runner of an original Spin Cycle has a RUNNING request."""
    return row["runner_id"] == ORIGINAL or not row["epoch"]


@dataclass(slots=True)
class RequestStop(Stop):
    """Asks a RUNNING request to stop. Result: a StopOutcome."""

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> StopOutcome:
        """Marks the request. A second stop skips the `finally` parts."""
        if row["state"] != State.RUNNING:
            return StopOutcome.NOT_RUNNING
        if not row["stop_requested"]:
            self.mark(rows, row)
            rows.record(self.event)
        elif row["has_finally"] and not row["skip_finally"] and not self.is_repeated:
            rows.change(self.request_id, skip_finally=True)
            rows.record(self.event)
        if is_run_by_original(row):
            return StopOutcome.RUN_BY_ORIGINAL
        return StopOutcome.FINALLY_SKIPPED if row["skip_finally"] else StopOutcome.RUNNING


@dataclass(slots=True)
class EndLostOriginal(StateWrite):
    """Stops a RUNNING request whose runner was one of an original and is gone. Result: whether it happened.

    Otherwise it would stay RUNNING forever, because nobody knows how far it has come.
    """

    order: ClassVar[int] = 4
    request_id: str
    now: int

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> bool:
        """Sets STOPPED."""
        if row["state"] != State.RUNNING or not is_run_by_original(row):
            return False
        end_unassigned(rows, self.request_id, State.STOPPED, self.now)
        return True


@dataclass(slots=True)
class Finish(StateWrite):
    """Sets the final state of a RUNNING request. Result: None.

    If `epoch` is given, the request must still have that assignment.
    """

    order: ClassVar[int] = 5
    request_id: str
    state: State
    finished_at: int
    finished_jobs: int | None = None
    finished_tasks: int | None = None
    epoch: int | None = None

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> SpinCycleError | None:
        """Sets the state, the end time and the number of finished jobs."""
        if row["state"] != State.RUNNING or self.epoch not in (None, row["epoch"]):
            return wrong_state(self.request_id, row["state"], State.RUNNING)
        is_counted = self.finished_jobs is not None
        rows.change(
            self.request_id,
            state=self.state,
            finished_at=self.finished_at,
            finished_jobs=self.finished_jobs if is_counted else row["finished_jobs"],
            finished_tasks=self.finished_tasks if is_counted else row["finished_tasks"],
            jr_url=None,
        )
        rows.drop_suspended(self.request_id, for_good=True)
        return None


@dataclass(slots=True)
class Progress(StateWrite):
    """Sets a request's number of finished jobs. Result: None."""

    order: ClassVar[int] = 6
    request_id: str
    finished_jobs: int

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> None:
        """Sets the number in every state, as the original does."""
        rows.change(self.request_id, finished_jobs=self.finished_jobs, finished_tasks=None)
