"""Writes the JobChain message in place, job by job and edge by edge, so that nothing is copied later."""

from __future__ import annotations

from collections.abc import Iterator

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import Job, JobChain
from spincycle_server.capabilities import RETRY_BACKOFF
from spincycle_server.graph.plan import NodePlan
from spincycle_server.graph.scope import Scope

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
            raise too_many_jobs(self._max_jobs - self._left)
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

    def job_of(self, node: NodePlan, job_id: str, scope: Scope) -> Job:
        """Adds the job of a node, with all that its spec says, and returns it."""
        job = self.job(job_id, node.name, node.type, scope.sequence_id, scope.parent_sequence_id)
        if node.retry:
            job.retry = node.retry
            job.retry_wait = node.retry_wait
            if node.backoff is not None:
                job.retry_backoff.CopyFrom(node.backoff)
                self.features.add(RETRY_BACKOFF)
        if node.timeout:
            job.timeout = node.timeout
        return job

    def noop(self, job_id: str, sequence_id: str, parent_sequence_id: str) -> Job:
        """Adds a job that only joins other jobs, and returns it."""
        return self.job(job_id, NOOP, NOOP, sequence_id, parent_sequence_id)

    def label(self, job_id: str, label: str) -> None:
        """Labels a sequence, by the id of its first job, or a job that is one of several of a node."""
        self.chain.path_labels[job_id] = label

    def edge(self, before: str, after: str) -> None:
        """Makes `after` depend directly on `before`."""
        self._adjacency_list[before].ids.append(after)


def too_many_jobs(limit: int) -> InvalidArgumentError:
    """Returns the error for a chain that would have more jobs than it may have."""
    return InvalidArgumentError(
        f"the job chain would have more than {limit} jobs: "
        "split the lists of the request and make several requests",
        reason="TOO_MANY_JOBS",
    )


def checked_size(chain: JobChain) -> int:
    """Returns the bytes of a finished chain, if it can be sent to a runner.

    Raises:
        InvalidArgumentError: It is too large. Reason: CHAIN_TOO_LARGE.
    """
    size = chain.ByteSize()
    if size > MAX_CHAIN_BYTES:
        raise InvalidArgumentError(
            f"the job chain would have {size} bytes: at most {MAX_CHAIN_BYTES} can be sent to a runner, "
            "so pass smaller args, or make several requests",
            reason="CHAIN_TOO_LARGE",
        )
    return size
