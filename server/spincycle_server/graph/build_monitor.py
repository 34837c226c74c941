"""Watching a build from another thread: which job's create runs since when, and giving the build up."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from spincycle_grpc.errors import CallCancelledError
from spincycle_server.graph.spec_path import SpecPath


class JobCreation(NamedTuple):
    """A job that is being made: its factory, create or serialize runs."""

    path: SpecPath
    node: str
    job_type: str
    since: float

    def describe(self) -> str:
        """Returns where in the specs the job stands, as errors say it: `in seq sequence_a, node b`."""
        return self.path.describe(self.node)


class BuildMonitor:
    """What one build shares with the thread that waits for it.

    The building thread writes `creating` and reads `cancelled`, the waiting one does the reverse;
    both are single attributes, so that neither needs a lock.

    Args:
        clock: Tells the time in seconds, by a clock that never goes back.

    Attributes:
        creating: The job that is being made right now; None between jobs.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.creating: JobCreation | None = None
        self._clock = clock
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether the build was given up."""
        return self._cancelled

    def cancel(self) -> None:
        """Gives the build up: it ends before its next job. A create that runs is not interrupted."""
        self._cancelled = True

    def begin_job(self, path: SpecPath, node: str, job_type: str) -> None:
        """Says that a job is going to be made.

        Raises:
            CallCancelledError: The build was given up. Reason: BUILD_CANCELLED.
        """
        if self._cancelled:
            raise CallCancelledError(
                f"{path.describe(node)}: the building of the job chain was given up",
                reason="BUILD_CANCELLED",
            )
        self.creating = JobCreation(path, node, job_type, self._clock())

    def end_job(self) -> None:
        """Says that the job is made, or failed to be."""
        self.creating = None
