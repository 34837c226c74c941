"""Pauses of requests: begin and end them, and say who has paused a request.

A pause is a mark on the row of the request. A request with the mark is assigned to no runner. If a runner
has it, the runner is told afterwards, and the request is SUSPENDED when its chain has left the runner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, ClassVar, NamedTuple

from sqlalchemy import select
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import FailedPreconditionError, SpinCycleError
from spincycle_grpc.state import UNFINISHED_STATES, State
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_server.store.audit import EventRow
from spincycle_server.store.request_rows import RequestRows
from spincycle_server.store.schema import requests
from spincycle_server.store.states import StateWrite, is_run_by_original


class PauseOutcome(Enum):
    """What is left to do after a pause has begun or ended.

    Attributes:
        NO_RUNNER: No runner has the request.
        TELL_RUNNER: A runner may have the request, and must be told.
    """

    NO_RUNNER = auto()
    TELL_RUNNER = auto()


@dataclass(slots=True)
class BeginPause(StateWrite):
    """Pauses a request. Result: a PauseOutcome, or an error.

    A repeated pause keeps the name and the time of the first one, and has no audit event, unless it also
    stops the running jobs.
    """

    order: ClassVar[int] = 4
    request_id: str
    user: str
    stops_jobs: bool
    now: int
    event: EventRow | None = None

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> PauseOutcome | SpinCycleError:
        """Marks the row."""
        if row["state"] not in UNFINISHED_STATES:
            return _not_pausable(self.request_id, f"has ended with the state {State(row['state']).name}")
        if row["stop_requested"] or row["ending"] is not None:
            return _not_pausable(self.request_id, "is being stopped")
        is_running = row["state"] == State.RUNNING
        if is_running and is_run_by_original(row):
            return FailedPreconditionError(
                f"a job runner of the original runs request {self.request_id}, and cannot pause it: stop it, "
                "or wait for its end",
                reason="CANNOT_PAUSE",
                request_id=self.request_id,
            )
        if row["paused_at"] is None:
            rows.set_pause(self.request_id, self.now, self.user, stops_jobs=self.stops_jobs)
            rows.record(self.event)
        elif self.stops_jobs and not row["pause_now"]:
            rows.set_pause(self.request_id, row["paused_at"], row["paused_by"], stops_jobs=True)
            rows.record(self.event)
        return PauseOutcome.TELL_RUNNER if is_running else PauseOutcome.NO_RUNNER


@dataclass(slots=True)
class EndPause(StateWrite):
    """Ends the pause of a request. Result: a PauseOutcome, or an error."""

    order: ClassVar[int] = 4
    request_id: str
    event: EventRow | None = None

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> PauseOutcome | SpinCycleError:
        """Removes the mark. The time in which a suspended request must be resumed begins again."""
        # An original that ends a request does not know the mark.
        if row["paused_at"] is None or row["state"] not in UNFINISHED_STATES:
            return FailedPreconditionError(
                f"request {self.request_id} is not paused: its state is {State(row['state']).name}",
                reason="WRONG_STATE",
                request_id=self.request_id,
            )
        rows.end_pause(self.request_id)
        if row["state"] == State.SUSPENDED:
            rows.suspended_again(self.request_id)
        rows.record(self.event)
        return PauseOutcome.TELL_RUNNER if row["state"] == State.RUNNING else PauseOutcome.NO_RUNNER


class HeldPause(NamedTuple):
    """What the runner of a RUNNING request must know of its pause.

    Attributes:
        assignment: The assignment of the request.
        runner_id: The runner, or "".
        is_paused: Whether the request is paused.
        stops_jobs: Whether the running jobs must stop.
    """

    assignment: Assignment
    runner_id: str
    is_paused: bool
    stops_jobs: bool


def pause_of(connection: Connection, request_id: str) -> HeldPause | None:
    """Returns whether a RUNNING request is paused; None if it is in another state."""
    row = connection.execute(
        select(requests.c.epoch, requests.c.runner_id, requests.c.paused_at, requests.c.pause_now).where(
            requests.c.request_id == request_id, requests.c.state == State.RUNNING
        )
    ).one_or_none()
    if row is None:
        return None
    return HeldPause(
        Assignment(request_id=request_id, epoch=row.epoch),
        row.runner_id or "",
        row.paused_at is not None,
        bool(row.pause_now),
    )


def _not_pausable(request_id: str, why: str) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"request {request_id} cannot be paused: it {why}", reason="WRONG_STATE", request_id=request_id
    )
