"""Counts running, retried and failed jobs for the progress bar of `spinc`."""

from __future__ import annotations

import time
from collections.abc import Iterable

from spincycle_grpc.client import Client
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.state_pb2 import STATE_FAIL
from spincycle_grpc.v1.status_pb2 import JobStatus

_LOG_PAUSE = 1.0
_LOG_SHARE = 10


class JobCounts:
    """Counts the jobs of one request. It does not fetch the log on each refresh, because a log can be large.

    Args:
        client: Calls the server.
        request_id: The id of the request.
    """

    def __init__(self, client: Client, request_id: str) -> None:
        self._client = client
        self._request_id = request_id
        self._next_log = 0.0
        self._running: dict[str, int] = {}
        self._newest: dict[str, JobLog] = {}

    def refresh(self) -> None:
        """Updates the counts.

        Raises:
            SpinCycleError: A call failed. The counts stay as they were.
        """
        self._running = {job.job_id: try_of(job) for job in self._client.running(self._request_id).jobs}
        begin = time.monotonic()
        if begin >= self._next_log:
            self._next_log = begin + _LOG_PAUSE
            self._newest = newest_entries(self._client.log(self._request_id))
            end = time.monotonic()
            self._next_log = end + max(_LOG_PAUSE, _LOG_SHARE * (end - begin))

    def text(self) -> str:
        """Returns the counts that are not zero, for example ", 2 running, 1 failed"."""
        tries = dict(self._running)
        for job_id, entry in self._newest.items():
            tries[job_id] = max(try_of(entry), tries.get(job_id, 0))
        counts = (
            (len(self._running), "running"),
            (sum(number > 1 for number in tries.values()), "retried"),
            (sum(entry.job_id not in self._running for entry in _failed(self._newest)), "failed"),
        )
        return "".join(f", {count} {word}" for count, word in counts if count)


def newest_entries(entries: Iterable[JobLog]) -> dict[str, JobLog]:
    """Returns the entry of each job's newest try, by job id."""
    newest: dict[str, JobLog] = {}
    for entry in entries:
        if entry.job_id not in newest or try_of(entry) > try_of(newest[entry.job_id]):
            newest[entry.job_id] = entry
    return newest


def failed_entries(entries: Iterable[JobLog]) -> list[JobLog]:
    """Returns the entries of the jobs whose newest try failed, oldest first."""
    return sorted(_failed(newest_entries(entries)), key=lambda entry: (entry.finished_at, entry.job_id))


def _failed(newest: dict[str, JobLog]) -> list[JobLog]:
    return [entry for entry in newest.values() if entry.state == STATE_FAIL]


def try_of(message: JobLog | JobStatus) -> int:
    """Returns the field `try`, whose name is a Python keyword."""
    number: int = getattr(message, "try")
    return number
