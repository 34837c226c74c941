"""Counts running, retried and failed jobs for the progress bar of `spinc`."""

from __future__ import annotations

from spincycle_grpc.cli.job_paths import line_name, path_of
from spincycle_grpc.cli.output import printable
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.request_manager_pb2 import WatchResponse
from spincycle_grpc.v1.state_pb2 import STATE_FAIL
from spincycle_grpc.v1.status_pb2 import JobStatus

_MOST_NAMES = 3
"""The maximum number of running jobs that are named."""


class JobCounts:
    """Counts the jobs of one request from the messages of its watch."""

    def __init__(self) -> None:
        self._running: dict[str, JobStatus] = {}
        self._newest: dict[str, JobLog] = {}

    def add(self, message: WatchResponse) -> None:
        """Adds the tries and the running jobs of a message."""
        for entry in message.tries:
            self._running.pop(entry.job_id, None)
            known = self._newest.get(entry.job_id)
            if known is None or try_of(entry) > try_of(known):
                self._newest[entry.job_id] = entry
        for snapshot in message.running:
            self._running = {job.job_id: job for job in snapshot.jobs}

    def text(self, *, with_names: bool = False) -> str:
        """Returns the counts that are not zero, for example ", 2 running, 1 failed".

        Args:
            with_names: Whether to name the running jobs: ", 2 running (copy, check), 1 failed".
        """
        tries = {job_id: try_of(job) for job_id, job in self._running.items()}
        for job_id, entry in self._newest.items():
            tries[job_id] = max(try_of(entry), tries.get(job_id, 0))
        counts = (
            (len(self._running), f"running{self._names() if with_names else ''}"),
            (sum(number > 1 for number in tries.values()), "retried"),
            (sum(entry.job_id not in self._running for entry in _failed(self._newest)), "failed"),
        )
        return "".join(f", {count} {word}" for count, word in counts if count)

    def _names(self) -> str:
        names = [printable(path_of(job)) for job in self._running.values()]
        more = ", ..." if len(names) > _MOST_NAMES else ""
        return f" ({', '.join(names[:_MOST_NAMES])}{more})"


def _failed(newest: dict[str, JobLog]) -> list[JobLog]:
    return [entry for entry in newest.values() if entry.state == STATE_FAIL]


def try_of(message: JobLog | JobStatus) -> int:
    """Returns the field `try`, whose name is a Python keyword."""
    number: int = getattr(message, "try")
    return number


def try_name(job: JobLog | JobStatus) -> str:
    """Returns the name of a job for a line, with the number of the try from the second one on."""
    number = f" (try {try_of(job)})" if try_of(job) > 1 else ""
    return f"{line_name(job)}{number}"
