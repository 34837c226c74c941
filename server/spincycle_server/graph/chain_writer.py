"""Writes the JobChain message in place, job by job and edge by edge, so that nothing is copied later."""

from __future__ import annotations

from collections.abc import Iterator

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import Job, JobChain

MAX_CONTENT = 64 * 1024 * 1024
"""The maximum size in bytes of the args and the data of all jobs of a chain. A larger chain could not be sent
to a runner. The limit also bounds the memory of a request whose large arg goes to many jobs."""

MAX_CHAIN_BYTES = 60 * 1024 * 1024
"""The maximum size of a serialized chain in bytes. A message to a runner has at most 64 MiB."""

NOOP = "noop"
"""The name and the type of jobs that only join other jobs."""

_PENDING = State.PENDING.value


class ChainWriter:
    """Writes one job chain.

    Args:
        request_id: The id of the request.
        timeout: The timeout of the request, as a duration, or "" for none.
        ids: The source of job ids.
        max_jobs: The maximum number of jobs in the chain.

    Attributes:
        chain: The chain so far.
        tasks: How many of its jobs do more than to connect other jobs.
        features: The features that the chain needs of a runner.
        is_in_finally: New jobs belong to the `finally` of a sequence.
    """

    def __init__(self, request_id: str, timeout: str, ids: Iterator[str], max_jobs: int) -> None:
        self.chain = JobChain(request_id=request_id, state=State.PENDING.value, timeout=timeout)
        self._jobs = self.chain.jobs
        self._adjacency_list = self.chain.adjacency_list
        self._ids = ids
        self._left = self._max_jobs = max_jobs
        self._content = 0
        self.tasks = 0
        self.features: set[str] = set()
        self.is_in_finally = False

    def job_id(self) -> str:
        """Returns the id of the next job.

        Raises:
            InvalidArgumentError: The chain is at its limit of jobs. Reason: TOO_MANY_JOBS.
        """
        job_id = next(self._ids, "") if self._left else ""
        if not job_id:
            raise InvalidArgumentError(
                f"the job chain would have more than {self._max_jobs - self._left} jobs: "
                "split the lists of the request and make several requests",
                reason="TOO_MANY_JOBS",
            )
        self._left -= 1
        return job_id

    def job(self, job_id: str, name: str, job_type: str, sequence_id: str, parent_sequence_id: str) -> Job:
        """Adds a job and returns it. The caller fills in the remaining fields."""
        if name != NOOP or job_type != NOOP:
            self.tasks += 1
        job = self._jobs[job_id]
        job.id = job_id
        job.name = name
        job.type = job_type
        job.state = _PENDING
        job.sequence_id = sequence_id
        job.parent_sequence_id = parent_sequence_id
        if self.is_in_finally:
            job.is_finally = True
        return job

    def count_content(self, job: Job) -> None:
        """Counts the args and the data of a finished job.

        Raises:
            InvalidArgumentError: Those of all jobs are too large. Reason: CHAIN_TOO_LARGE.
        """
        self._content += job.args.ByteSize() + len(job.bytes)
        if self._content > MAX_CONTENT:
            raise InvalidArgumentError(
                f"the args and the data of all jobs would have more than {MAX_CONTENT} bytes: "
                "pass smaller args, or make several requests",
                reason="CHAIN_TOO_LARGE",
            )

    def checked_size(self) -> int:
        """Returns the bytes of the finished chain, if it can be sent to a runner.

        Raises:
            InvalidArgumentError: It is too large. Reason: CHAIN_TOO_LARGE.
        """
        size = self.chain.ByteSize()
        if size > MAX_CHAIN_BYTES:
            raise InvalidArgumentError(
                f"the job chain would have {size} bytes: at most {MAX_CHAIN_BYTES} can be sent to a runner, "
                "so pass smaller args, or make several requests",
                reason="CHAIN_TOO_LARGE",
            )
        return size

    def noop(self, job_id: str, sequence_id: str, parent_sequence_id: str) -> Job:
        """Adds a job that only joins other jobs, and returns it."""
        return self.job(job_id, NOOP, NOOP, sequence_id, parent_sequence_id)

    def label(self, job_id: str, label: str) -> None:
        """Labels a sequence, by the id of its first job, or a job that is one of several of a node."""
        self.chain.path_labels[job_id] = label

    def edge(self, before: str, after: str) -> None:
        """Makes `after` depend directly on `before`."""
        self._adjacency_list[before].ids.append(after)
