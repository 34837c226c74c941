"""The failed jobs of a request, each with all its tries."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from spincycle_grpc.cli.counts import try_of
from spincycle_grpc.cli.job_paths import path_of
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.state_pb2 import STATE_FAIL

if TYPE_CHECKING:
    from spincycle_grpc.client import Client

_LONGEST_KEPT = 16 * 1024
"""The number of characters of an output's end that are kept of each try."""


@dataclass(frozen=True)
class FailedJob:
    """A job whose newest try has failed.

    Attributes:
        tries: All its tries, oldest first, or the newest one alone. They have no stdout, and only the end of
            stderr.
    """

    tries: tuple[JobLog, ...]

    @property
    def newest(self) -> JobLog:
        """The newest try."""
        return self.tries[-1]

    @property
    def job_id(self) -> str:
        """The id of the job."""
        return self.newest.job_id

    @property
    def path(self) -> str:
        """The path of the job."""
        return path_of(self.newest)


def read_failed_jobs(
    client: Client, request_id: str, most: int | None = None
) -> tuple[list[FailedJob], bool]:
    """Reads the jobs whose newest try has failed, each with this try alone.

    Args:
        client: Calls the server.
        request_id: The request.
        most: The maximum number of failed tries to read, because each can have much output. None: no maximum.

    Returns:
        The jobs, in the order of their failures, and whether there may be more.

    Raises:
        SpinCycleError: A call failed.
    """
    newest: dict[str, JobLog] = {}
    number = 0
    # A server of an earlier release ignores the filters.
    entries = islice(client.iter_log(request_id, states=[STATE_FAIL], latest_tries=True), most)
    for number, entry in enumerate(entries, 1):  # noqa: B007 (it is used after the loop)
        if entry.job_id not in newest or try_of(entry) > try_of(newest[entry.job_id]):
            newest[entry.job_id] = _shortened(entry)
    failed = [FailedJob((entry,)) for entry in newest.values() if entry.state == STATE_FAIL]
    return sorted(failed, key=lambda job: (job.newest.finished_at, job.job_id)), number == most


def with_all_tries(client: Client, job: FailedJob) -> FailedJob:
    """Returns a failed job with all its tries.

    Raises:
        SpinCycleError: A call failed.
    """
    if try_of(job.newest) == 1:
        return job
    entries = client.iter_log(job.newest.request_id, job_id=job.job_id)
    tries = [_shortened(entry) for entry in entries if entry.job_id == job.job_id]
    return FailedJob(tuple(sorted(tries, key=try_of))) if tries else job


def _shortened(entry: JobLog) -> JobLog:
    """Returns an entry without what is never shown of it, because a request can have many large ones."""
    kept = JobLog()
    kept.CopyFrom(entry)
    kept.ClearField("stdout")
    kept.stderr = entry.stderr[-_LONGEST_KEPT:]
    return kept
