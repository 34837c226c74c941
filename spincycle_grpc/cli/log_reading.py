"""Reads the tries that a user of `spinc log` has chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from spincycle_grpc.cli.failed_jobs import FailedJob, read_failed_jobs, with_all_tries
from spincycle_grpc.errors import NotFoundError
from spincycle_grpc.v1.job_log_pb2 import JobLog

if TYPE_CHECKING:
    from spincycle_grpc.client import Client


@dataclass(frozen=True)
class Choice:
    """Which tries of a request to read.

    Attributes:
        request_id: The request.
        jobs: The ids of the jobs. None: all.
        tail: The maximum number of tries or failed jobs: the newest ones. None: no maximum, but only the
            newest try of a single job.
        has_noops: Whether to read the tries of noops that only connect other jobs.
    """

    request_id: str
    jobs: frozenset[str] | None
    tail: int | None
    has_noops: bool

    @property
    def is_one_job(self) -> bool:
        """Whether a single job is chosen."""
        return self.jobs is not None and len(self.jobs) == 1

    def has(self, job_id: str) -> bool:
        """Whether a job is chosen."""
        return self.jobs is None or job_id in self.jobs


def read_entries(client: Client, choice: Choice, *, has_output: bool) -> list[JobLog]:
    """Returns the chosen tries, oldest first.

    Args:
        client: Calls the server.
        choice: What to read.
        has_output: Whether to keep what the jobs wrote, which can be large.

    Raises:
        NotFoundError: The only chosen job has not finished a try. Reason: JOB_NOT_FOUND.
        SpinCycleError: A call failed.
    """
    most = choice.tail or (1 if choice.is_one_job else None)
    read = client.iter_log(
        choice.request_id,
        job_id=min(choice.jobs) if choice.jobs is not None and choice.is_one_job else "",
        omit_noops=not choice.has_noops and not choice.is_one_job,
        newest_first=most is not None,
        page_size=most or 0 if choice.jobs is None or choice.is_one_job else 0,
    )
    chosen = (entry for entry in read if choice.has(entry.job_id))
    entries = [_kept(entry, has_output) for entry in islice(chosen, most)]
    if choice.is_one_job and not entries:
        raise NotFoundError(
            f"the job of request {choice.request_id} has not finished a try: --follow shows what it writes",
            reason="JOB_NOT_FOUND",
        )
    return sorted(entries, key=lambda entry: (entry.finished_at, entry.job_id))


def read_failed(client: Client, choice: Choice, *, has_all_tries: bool) -> Iterator[FailedJob]:
    """Yields the chosen jobs whose newest try has failed, in the order of their failures.

    Args:
        client: Calls the server.
        choice: What to read.
        has_all_tries: Whether to read all tries of each job, which takes a call for each that was retried.

    Raises:
        SpinCycleError: A call failed.
    """
    found, _ = read_failed_jobs(client, choice.request_id)
    failed = [job for job in found if choice.has(job.job_id)]
    for job in failed[-(choice.tail or 0) :]:
        yield with_all_tries(client, job) if has_all_tries else job


def _kept(entry: JobLog, has_output: bool) -> JobLog:
    if not has_output:
        entry.ClearField("stdout")
        entry.ClearField("stderr")
    return entry
