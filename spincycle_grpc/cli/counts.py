"""How many jobs of a request run, were tried again, and failed: what the bar of `spinc` shows besides."""

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
    """Counts the jobs of one request. A log can be large, so it is asked for now and then only.

    Args:
        client: Asks the server.
        request_id: The request.
    """

    def __init__(self, client: Client, request_id: str) -> None:
        self._client = client
        self._request_id = request_id
        self._next_log = 0.0
        self._running: dict[str, int] = {}
        self._newest: dict[str, JobLog] = {}

    def look(self) -> None:
        """Counts anew.

        Raises:
            SpinCycleError: The server cannot be asked; the counts stay what they were.
        """
        self._running = {job.job_id: try_of(job) for job in self._client.running(self._request_id).jobs}
        begin = time.monotonic()
        if begin >= self._next_log:
            self._next_log = begin + _LOG_PAUSE
            self._newest = newest_entries(self._client.log(self._request_id))
            end = time.monotonic()
            self._next_log = end + max(_LOG_PAUSE, _LOG_SHARE * (end - begin))

    def text(self) -> str:
        """Returns the counts that are not zero, as ", 2 running, 1 retried, 1 failed"."""
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
    """Returns job id to the entry of the job's newest try."""
    newest: dict[str, JobLog] = {}
    for entry in entries:
        if entry.job_id not in newest or try_of(entry) > try_of(newest[entry.job_id]):
            newest[entry.job_id] = entry
    return newest


def failed_entries(entries: Iterable[JobLog]) -> list[JobLog]:
    """Returns the newest tries of the jobs whose newest try failed, oldest first."""
    return sorted(_failed(newest_entries(entries)), key=lambda entry: (entry.finished_at, entry.job_id))


def _failed(newest: dict[str, JobLog]) -> list[JobLog]:
    return [entry for entry in newest.values() if entry.state == STATE_FAIL]


def try_of(message: JobLog | JobStatus) -> int:
    """Returns the number of a try, whose field has a name that Python keeps for itself."""
    number: int = getattr(message, "try")
    return number
