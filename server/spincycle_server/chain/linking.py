"""Builds a linked chain from a JobChain message, and checks that the chain can run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from spincycle_grpc.duration import parse_duration
from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.job_paths import connects
from spincycle_grpc.structs import from_struct
from spincycle_grpc.v1.job_pb2 import Job, JobChain, JobIds, RetryBackoff
from spincycle_server.chain.final_linking import link_finals
from spincycle_server.chain.keys import Keys, link_keys
from spincycle_server.chain.linked_chain import ChainJob, ChainSequence, LinkedChain, MarkedJobs
from spincycle_server.chain.retry_wait import LONGEST, NO_WAIT, RetryWait
from spincycle_server.chain.window_linking import link_windows


class _RetryFields(NamedTuple):
    """The names of the fields that say how long to wait between two tries."""

    wait: str
    backoff: str


_OF_JOB = _RetryFields("retryWait", "retryBackoff")
_OF_SEQUENCE = _RetryFields("sequenceRetryWait", "sequenceRetryBackoff")


def invalid_chain(message: str, request_id: str) -> InvalidArgumentError:
    """Returns the error for a chain that cannot run."""
    return InvalidArgumentError(message, reason="INVALID_JOB_CHAIN", request_id=request_id)


def link_chain(chain: JobChain) -> LinkedChain:
    """Links the jobs and sequences of a chain. All jobs are PENDING, whatever the message says.

    Raises:
        InvalidArgumentError: The chain has no jobs, an edge to an unknown job, a cycle, several first or last
            jobs, or an invalid sequence, duration, window, `finally` part or limit. Reason:
            INVALID_JOB_CHAIN.
    """
    request_id = chain.request_id
    # Each look at `chain.jobs` makes a new object. So the messages are looked at once for all purposes.
    messages = chain.jobs
    if not messages:
        raise invalid_chain("job chain has no jobs", request_id)
    # Protobuf maps have no order. Sorting makes a chain behave the same in every process.
    ids = sorted(messages)
    sequences = _sequences(messages, ids, request_id)
    marked = MarkedJobs()
    jobs = _jobs(messages, ids, sequences, marked, request_id)
    _link_jobs(chain.adjacency_list, jobs, request_id)
    _check_shape(jobs, request_id)
    try:
        windows = link_windows(chain, jobs) if chain.windows else []
        finals = link_finals(marked.of_finals, jobs, sequences) if marked.of_finals else []
        keys = link_keys(chain, marked.limited, sequences) if marked.limited else Keys()
    except ValueError as error:
        raise invalid_chain(str(error), request_id) from error
    for window in windows:
        window.sequence.windows.append(window)
    timeout = _duration(chain.timeout, "timeout", request_id)
    return LinkedChain(jobs, sequences, timeout, windows, finals, keys, marked)


def _sequences(messages: Mapping[str, Job], ids: Iterable[str], request_id: str) -> dict[str, ChainSequence]:
    sequences: dict[str, ChainSequence] = {}
    parents: dict[str, str] = {}
    for job_id in ids:
        job = messages[job_id]
        if job.id != job_id:
            raise invalid_chain(
                f"job {job.name} has ID {job.id}, but its key in jobs is {job_id}", request_id
            )
        if job.sequence_id == job_id:
            timeout = job.sequence_timeout
            sequences[job_id] = ChainSequence(
                id=job_id,
                retry=job.sequence_retry,
                retry_wait=(
                    _retry_wait(job, _OF_SEQUENCE, wait, job.sequence_retry_backoff, request_id)
                    if (wait := job.sequence_retry_wait) or job.HasField("sequence_retry_backoff")
                    else NO_WAIT
                ),
                timeout=_duration(timeout, "sequenceTimeout", request_id, job) if timeout else 0,
                timeout_text=timeout,
            )
            if parent := job.parent_sequence_id:
                parents[job_id] = parent
    if parents:
        _nest(sequences, parents, request_id)
    return sequences


def _nest(sequences: dict[str, ChainSequence], parents: Mapping[str, str], request_id: str) -> None:
    """Links each sequence that has a parent to the sequence around it."""
    for sequence_id, parent_id in parents.items():
        sequence, parent = sequences[sequence_id], sequences.get(parent_id)
        if parent is None:
            raise invalid_chain(
                f"sequence {sequence_id} has the parent sequence {parent_id}, which does not exist",
                request_id,
            )
        sequence.parent = parent
        parent.inner.append(sequence)
    reached = sum(1 for root in sequences.values() if root.parent is None for _ in root.subtree())
    if reached != len(sequences):
        raise invalid_chain("parent sequences form a cycle", request_id)


def _jobs(
    messages: Mapping[str, Job],
    ids: Iterable[str],
    sequences: dict[str, ChainSequence],
    marked: MarkedJobs,
    request_id: str,
) -> dict[str, ChainJob]:
    """Returns the jobs by id. Adds them to their sequences, and those with marks to `marked`."""
    jobs: dict[str, ChainJob] = {}
    for job_id in ids:
        job = messages[job_id]  # Not kept: the objects for all jobs of a large chain take much memory.
        # Chains from another builder may have jobs without a sequence, or with one that does not exist.
        # These jobs get a stand-in sequence, which is never retried.
        sequence = sequences.get(job.sequence_id)
        if sequence is None:
            stand_in = ChainSequence(id="", tries=1, is_own=False)
            sequence = sequences.setdefault(f"\0{job.sequence_id}", stand_in)
        if timeout := job.timeout:
            _duration(timeout, "timeout", request_id, job)
        jobs[job_id] = linked = ChainJob(
            id=job_id,
            name=job.name,
            sequence=sequence,
            retry=job.retry,
            retry_wait=(
                _retry_wait(job, _OF_JOB, wait, job.retry_backoff, request_id)
                if (wait := job.retry_wait) or job.HasField("retry_backoff")
                else NO_WAIT
            ),
            is_task=not connects(job),
            data=from_struct(job.data) if job.HasField("data") else {},
        )
        sequence.jobs.append(linked)
        marked.add(job_id, job)
    return jobs


def _link_jobs(adjacency_list: Mapping[str, JobIds], jobs: Mapping[str, ChainJob], request_id: str) -> None:
    """Links each job to those that depend on it."""
    try:
        for job_id in adjacency_list:
            parent = jobs[job_id]
            for child_id in dict.fromkeys(adjacency_list[job_id].ids):
                child = jobs[child_id]
                parent.children.append(child)
                child.missing += 1
    except KeyError:
        raise invalid_chain(
            "invalid adjacency list: some jobs exist in chain.AdjacencyList but not chain.Jobs", request_id
        ) from None


def _check_shape(jobs: Mapping[str, ChainJob], request_id: str) -> None:
    """Raises InvalidArgumentError if the jobs form a cycle, or have several first or last jobs."""
    unseen = {job_id: job.missing for job_id, job in jobs.items()}
    ready = [job for job in jobs.values() if not job.missing]
    first, last, seen = len(ready), 0, 0
    while ready:
        job = ready.pop()
        seen += 1
        last += not job.children
        for child in job.children:
            unseen[child.id] -= 1
            if not unseen[child.id]:
                ready.append(child)
    if seen != len(jobs):
        raise invalid_chain("chain is cyclic", request_id)
    if first > 1:
        raise invalid_chain(
            "job chain has more than one start job (node with indegree count > 0)", request_id
        )
    if last > 1:
        raise invalid_chain("job chain has more than one end job (node with outdegree count > 0)", request_id)


def _retry_wait(
    job: Job, fields: _RetryFields, text: str, backoff: RetryBackoff, request_id: str
) -> RetryWait:
    """Returns the pauses between the tries of a job, or of the sequence that begins with it.

    Args:
        job: The job.
        fields: The fields with the pauses, for errors.
        text: The first pause.
        backoff: How the pauses grow. An empty message, as of a job without it, leaves them equal.
        request_id: The request, for errors.
    """
    first = _duration(text, fields.wait, request_id, job)
    factor = backoff.factor or 1.0
    if not 1 <= factor < math.inf:
        what = f"{_where(job)}{fields.backoff} factor is {factor}"
        raise invalid_chain(f"{what}: it must be at least 1", request_id)
    longest = _duration(backoff.max, f"{fields.backoff} max", request_id, job) or LONGEST
    return RetryWait(first, factor, longest, backoff.jitter)


def _duration(text: str, field_name: str, request_id: str, job: Job | None = None) -> int:
    """Returns a duration in nanoseconds; 0 for "". The error names the job, if the field is one of a job."""
    if not text:
        return 0
    try:
        return parse_duration(text)
    except ValueError as error:
        where = "" if job is None else _where(job)
        raise invalid_chain(f"{where}{field_name} '{text}' {error}", request_id) from error


def _where(job: Job) -> str:
    return f"job {job.name} (ID {job.id}): "
