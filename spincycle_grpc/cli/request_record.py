"""What a Request Manager knows about one request: its state, its running jobs and its failed jobs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spincycle_grpc.cli.counts import try_of
from spincycle_grpc.cli.failed_jobs import FailedJob, read_failed_jobs, with_all_tries
from spincycle_grpc.errors import PermissionDeniedError
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.state_pb2 import STATE_COMPLETE, STATE_PENDING, STATE_RUNNING, STATE_SUSPENDED
from spincycle_grpc.v1.status_pb2 import JobStatus
from spincycle_grpc.wire import encode

if TYPE_CHECKING:
    from spincycle_grpc.client import Client

_MAY_RUN_JOBS = (STATE_RUNNING, STATE_SUSPENDED)
_HAS_NO_FAILED_JOBS = (STATE_PENDING, STATE_COMPLETE)


MOST_FAILED = 1000
"""The maximum number of failed jobs that are read. There may be more."""


@dataclass(frozen=True)
class RequestRecord:
    """A request with its jobs that need attention.

    Attributes:
        request: The request.
        running: Its running jobs, oldest first.
        failed: The jobs whose newest try has failed and that do not run again now.
        has_more_failed: Whether there may be further failed jobs, which were not read.
        is_log_denied: Whether the user may not read the job log. Then failed jobs are not known.
    """

    request: Request
    running: tuple[JobStatus, ...] = ()
    failed: tuple[FailedJob, ...] = ()
    has_more_failed: bool = False
    is_log_denied: bool = False

    def fields(self) -> dict[str, Any]:
        """Returns the request as JSON of the API, with `runningJobs` and `failedJobs`.

        `failedJobs` is null if the user may not read the job log.
        """
        fields: dict[str, Any] = json.loads(encode(self.request))
        fields["runningJobs"] = [json.loads(encode(job)) for job in self.running]
        fields["failedJobs"] = None if self.is_log_denied else [_job_fields(job) for job in self.failed]
        return fields


def read_record(client: Client, request: Request, *, with_tries: int | None = None) -> RequestRecord:
    """Reads the jobs of a request that need attention.

    Args:
        client: Calls the server.
        request: The request.
        with_tries: Of how many failed jobs to read all tries, with a call each. None: of all.

    Raises:
        SpinCycleError: A call failed.
    """
    running = client.running(request.id).jobs if request.state in _MAY_RUN_JOBS else ()
    if request.state in _HAS_NO_FAILED_JOBS:
        return RequestRecord(request, tuple(running))
    again = {job.job_id for job in running}
    try:
        found, has_more = read_failed_jobs(client, request.id, MOST_FAILED)
        failed = [job for job in found if job.job_id not in again]
        failed[:with_tries] = [with_all_tries(client, job) for job in failed[:with_tries]]
    except PermissionDeniedError:  # Who may view a request may not always read what its jobs wrote.
        return RequestRecord(request, tuple(running), is_log_denied=True)
    return RequestRecord(request, tuple(running), tuple(failed), has_more)


def _job_fields(job: FailedJob) -> dict[str, Any]:
    return {
        "jobId": job.job_id,
        "name": job.newest.name,
        "type": job.newest.type,
        "path": list(job.newest.path),
        "tries": [_try_fields(entry) for entry in job.tries],
    }


def _try_fields(entry: JobLog) -> dict[str, Any]:
    return {
        "try": try_of(entry),
        "startedAt": entry.started_at,
        "finishedAt": entry.finished_at,
        "state": entry.state,
        "exit": entry.exit,
        "error": entry.error,
        "stderr": entry.stderr,
    }
