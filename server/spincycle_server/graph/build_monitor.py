"""Monitors a build from another thread: shows whose `create` runs and since when, and cancels the build."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from spincycle_grpc.errors import CallCancelledError
from spincycle_server.graph.spec_path import SpecPath


class JobCreation(NamedTuple):
    """A job that is being created: its factory, `create` or `serialize` runs."""

    path: SpecPath
    node: str
    job_type: str
    since: float

    def describe(self) -> str:
        """Returns the path of the job in the specs, as errors show it: `in seq sequence_a, node b`."""
        return self.path.describe(self.node)


class BuildMonitor:
    """State that a build shares with the thread that waits for it.

    The building thread writes `creating` and reads `cancelled`; the waiting thread does the reverse.
    Both are single attributes, so no lock is needed.

    Args:
        clock: Returns the time of a monotonic clock, in seconds.

    Attributes:
        creating: The job that is being created, or None between jobs.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.creating: JobCreation | None = None
        self._clock = clock
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether the build was cancelled."""
        return self._cancelled

    def cancel(self) -> None:
        """Cancels the build before its next job. A running `create` is not interrupted."""
        self._cancelled = True

    def begin_job(self, path: SpecPath, node: str, job_type: str) -> None:
        """Records that the creation of a job begins.

        Raises:
            CallCancelledError: The build was cancelled. Reason: BUILD_CANCELLED.
        """
        if self._cancelled:
            raise CallCancelledError(
                f"{path.describe(node)}: building the job chain was cancelled",
                reason="BUILD_CANCELLED",
            )
        self.creating = JobCreation(path, node, job_type, self._clock())

    def end_job(self) -> None:
        """Records that the creation of the job has ended, with or without success."""
        self.creating = None
