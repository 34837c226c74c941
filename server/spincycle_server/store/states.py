"""Changes of the states of requests: assigned to runners, stopped, finished.

A change of state is compare-and-set: it looks at the state first, under a lock, and says whether
it happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.state import State
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.errors import not_found, wrong_state
from spincycle_server.store.request_rows import RequestRows
from spincycle_server.store.write import Write


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


def end_unassigned(rows: RequestRows, request_id: str, state: State, now: int) -> None:
    """Ends a request that no runner has, and drops the suspended chain, if there is one."""
    rows.change(request_id, state=state, finished_at=now, jr_url=None)
    rows.drop_suspended(request_id, for_good=True)


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
            end_unassigned(rows, self.request_id, State.STOPPED, self.now)
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
        end_unassigned(rows, self.request_id, State.STOPPED, self.now)
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
