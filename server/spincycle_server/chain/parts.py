"""The jobs and sequences of a chain, linked to each other, and the checks that a chain must pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from spincycle_grpc.duration import parse_duration
from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.structs import from_struct
from spincycle_grpc.v1.job_pb2 import Job, JobChain


class Phase(Enum):
    """Where a sequence is with its tries."""

    OPEN = auto()
    """Its jobs run as they can."""

    DRAINING = auto()
    """It has failed and will be tried again, once none of its jobs runs."""

    WAITING = auto()
    """It waits for its next try."""

    EXPIRED = auto()
    """Its time is over."""


@dataclass(eq=False, slots=True)
class SequencePart:
    """A sequence as it runs.

    Attributes:
        tries: How often it has been started since the sequence around it was.
        active: The jobs in it that run, and the sequences right in it that have any.
        frozen: Whether it, or one around it, starts no jobs.
        generation: Tells its waits apart.
        lifetime: Counts how often one around it went back; tells its times apart.
        is_own: Whether the chain has it, rather than it standing for jobs that are in none.
        began: When its time began to run, in the driver's nanoseconds; None: it does not run.
        elapsed: Nanoseconds that it had run before.
    """

    id: str
    retry: int = 0
    retry_wait: int = 0
    timeout: int = 0
    timeout_text: str = ""
    parent: SequencePart | None = None
    jobs: list[JobPart] = field(default_factory=list)
    inner: list[SequencePart] = field(default_factory=list)
    phase: Phase = Phase.OPEN
    tries: int = 0
    active: int = 0
    frozen: bool = False
    generation: int = 0
    lifetime: int = 0
    is_own: bool = True
    began: int | None = None
    elapsed: int = 0

    def subtree(self) -> Iterator[SequencePart]:
        """Goes through this sequence and all in it."""
        stack = [self]
        while stack:
            sequence = stack.pop()
            yield sequence
            stack += sequence.inner

    def is_complete(self) -> bool:
        """Whether all jobs in it are COMPLETE."""
        return all(job.state is State.COMPLETE for part in self.subtree() for job in part.jobs)


@dataclass(eq=False, slots=True)
class JobPart:
    """A job as it runs.

    Attributes:
        missing: How many jobs right before it are not COMPLETE.
        tries: How often it was tried, over the whole request.
        run_tries: How often it was tried in this try of its sequence, without tries that were stopped.
        waits: Whether it is between two tries.
        stopping: Whether its running try was told to stop.
        expired: Whether that was because the time of a sequence is over.
    """

    id: str
    name: str
    sequence: SequencePart
    retry: int
    retry_wait: int
    data: dict[str, Any]
    state: State = State.PENDING
    children: list[JobPart] = field(default_factory=list)
    missing: int = 0
    tries: int = 0
    run_tries: int = 0
    waits: bool = False
    stopping: bool = False
    expired: bool = False

    def complete(self, data: Mapping[str, Any] | None) -> list[JobPart]:
        """Makes the job COMPLETE and passes its data on. Returns the jobs that now wait for no other."""
        self.state = State.COMPLETE
        if data is not None:
            self.data = dict(data)
        ready = []
        for child in self.children:
            if self.data:
                child.data = {**child.data, **self.data}
            child.missing -= 1
            if not child.missing:
                ready.append(child)
        return ready


@dataclass(slots=True)
class Parts:
    """A chain's jobs and sequences by their ids."""

    jobs: dict[str, JobPart]
    sequences: dict[str, SequencePart]
    timeout: int


def invalid(message: str, request_id: str) -> InvalidArgumentError:
    """Returns the error for a chain that cannot be run."""
    return InvalidArgumentError(message, reason="INVALID_JOB_CHAIN", request_id=request_id)


def linked(chain: JobChain) -> Parts:
    """Returns the parts of a chain, all jobs PENDING.

    Raises:
        InvalidArgumentError: The chain has no jobs, edges to jobs that it has not, a circle, several
            first or last jobs, or sequences or durations that make no sense. Reason: INVALID_JOB_CHAIN.
    """
    if not chain.jobs:
        raise invalid("job chain has no jobs", chain.request_id)
    sequences = _sequences(chain)
    # Sorted, since maps have no order: a chain goes the same way in each process.
    jobs = {job_id: _job_part(chain, job_id, chain.jobs[job_id], sequences) for job_id in sorted(chain.jobs)}
    for job_id in chain.adjacency_list:
        parent = jobs.get(job_id)
        children = [jobs.get(child_id) for child_id in chain.adjacency_list[job_id].ids]
        if parent is None or None in children:
            raise invalid(
                "invalid adjacency list: some jobs exist in chain.AdjacencyList but not chain.Jobs",
                chain.request_id,
            )
        for child in dict.fromkeys(child for child in children if child is not None):
            parent.children.append(child)
            child.missing += 1
    _check_shape(jobs, chain.request_id)
    for job in jobs.values():
        job.sequence.jobs.append(job)
    return Parts(jobs, sequences, _duration(chain.timeout, "timeout", "", chain.request_id))


def _sequences(chain: JobChain) -> dict[str, SequencePart]:
    sequences: dict[str, SequencePart] = {}
    for job_id in sorted(chain.jobs):
        job = chain.jobs[job_id]
        if job.id != job_id:
            raise invalid(f"job {job.name} has ID {job.id}, but stands under {job_id}", chain.request_id)
        if job.sequence_id == job_id:
            where = f"job {job.name} (ID {job_id}): "
            sequences[job_id] = SequencePart(
                id=job_id,
                retry=job.sequence_retry,
                retry_wait=_duration(job.sequence_retry_wait, "sequenceRetryWait", where, chain.request_id),
                timeout=_duration(job.sequence_timeout, "sequenceTimeout", where, chain.request_id),
                timeout_text=job.sequence_timeout,
            )
    for sequence_id, sequence in sequences.items():
        parent_id = chain.jobs[sequence_id].parent_sequence_id
        if parent_id:
            sequence.parent = sequences.get(parent_id)
            if sequence.parent is None:
                raise invalid(
                    f"sequence {sequence_id} is in sequence {parent_id}, which the chain has not",
                    chain.request_id,
                )
            sequence.parent.inner.append(sequence)
    reached = sum(1 for root in sequences.values() if root.parent is None for _ in root.subtree())
    if reached != len(sequences):
        raise invalid("sequences are in each other in a circle", chain.request_id)
    return sequences


def _job_part(chain: JobChain, job_id: str, job: Job, sequences: dict[str, SequencePart]) -> JobPart:
    # A chain that somebody else built may give a job no sequence, or one that the chain has not:
    # then it is in one of its own, which is never tried again.
    sequence = sequences.get(job.sequence_id)
    if sequence is None:
        stand_in = SequencePart(id="", tries=1, is_own=False)
        sequence = sequences.setdefault(f"\0{job.sequence_id}", stand_in)
    where = f"job {job.name} (ID {job_id}): "
    _duration(job.timeout, "timeout", where, chain.request_id)
    return JobPart(
        id=job_id,
        name=job.name,
        sequence=sequence,
        retry=job.retry,
        retry_wait=_duration(job.retry_wait, "retryWait", where, chain.request_id),
        data=from_struct(job.data) if job.HasField("data") else {},
    )


def _check_shape(jobs: dict[str, JobPart], request_id: str) -> None:
    """Raises InvalidArgumentError unless the jobs have no circle, one first and one last job."""
    unseen = {job_id: job.missing for job_id, job in jobs.items()}
    first = [job for job in jobs.values() if not job.missing]
    ready = deque(first)
    seen = 0
    while ready:
        job = ready.popleft()
        seen += 1
        for child in job.children:
            unseen[child.id] -= 1
            if not unseen[child.id]:
                ready.append(child)
    if seen != len(jobs):
        raise invalid("chain is cyclic", request_id)
    if len(first) > 1:
        raise invalid("job chain has more than one start job (node with indegree count > 0)", request_id)
    if sum(not job.children for job in jobs.values()) > 1:
        raise invalid("job chain has more than one end job (node with outdegree count > 0)", request_id)


def _duration(text: str, field_name: str, where: str, request_id: str) -> int:
    if not text:
        return 0
    try:
        return parse_duration(text)
    except ValueError as error:
        raise invalid(f"{where}{field_name} '{text}' {error}", request_id) from error
