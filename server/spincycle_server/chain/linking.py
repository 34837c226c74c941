"""Builds a linked chain from a JobChain message, and checks that the chain can run."""

from __future__ import annotations

import math
from collections import deque

from spincycle_grpc.duration import parse_duration
from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.job_paths import connects
from spincycle_grpc.structs import from_struct
from spincycle_grpc.v1.job_pb2 import Job, JobChain, RetryBackoff
from spincycle_server.chain.final_linking import link_finals
from spincycle_server.chain.keys import link_keys
from spincycle_server.chain.linked_chain import ChainJob, ChainSequence, LinkedChain
from spincycle_server.chain.retry_wait import LONGEST, NO_WAIT, RetryWait
from spincycle_server.chain.window_linking import link_windows


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
    if not chain.jobs:
        raise invalid_chain("job chain has no jobs", chain.request_id)
    sequences = _sequences(chain)
    # Protobuf maps have no order. Sorting makes a chain behave the same in every process.
    jobs = {job_id: _job(chain, job_id, chain.jobs[job_id], sequences) for job_id in sorted(chain.jobs)}
    for job_id in chain.adjacency_list:
        parent = jobs.get(job_id)
        children = [jobs.get(child_id) for child_id in chain.adjacency_list[job_id].ids]
        if parent is None or None in children:
            raise invalid_chain(
                "invalid adjacency list: some jobs exist in chain.AdjacencyList but not chain.Jobs",
                chain.request_id,
            )
        for child in dict.fromkeys(child for child in children if child is not None):
            parent.children.append(child)
            child.missing += 1
    _check_shape(jobs, chain.request_id)
    for job in jobs.values():
        job.sequence.jobs.append(job)
    try:
        windows = link_windows(chain, jobs) if chain.windows else []
        finals = link_finals(chain, jobs, sequences)
        keys = link_keys(chain, sequences)
    except ValueError as error:
        raise invalid_chain(str(error), chain.request_id) from error
    for window in windows:
        window.sequence.windows.append(window)
    timeout = _duration(chain.timeout, "timeout", "", chain.request_id)
    return LinkedChain(jobs, sequences, timeout, windows, finals, keys)


def _sequences(chain: JobChain) -> dict[str, ChainSequence]:
    sequences: dict[str, ChainSequence] = {}
    for job_id in sorted(chain.jobs):
        job = chain.jobs[job_id]
        if job.id != job_id:
            raise invalid_chain(
                f"job {job.name} has ID {job.id}, but its key in jobs is {job_id}", chain.request_id
            )
        if job.sequence_id == job_id:
            where = f"job {job.name} (ID {job_id}): "
            sequences[job_id] = ChainSequence(
                id=job_id,
                retry=job.sequence_retry,
                retry_wait=_retry_wait(
                    _duration(job.sequence_retry_wait, "sequenceRetryWait", where, chain.request_id),
                    job.sequence_retry_backoff if job.HasField("sequence_retry_backoff") else None,
                    f"{where}sequenceRetryBackoff ",
                    chain.request_id,
                ),
                timeout=_duration(job.sequence_timeout, "sequenceTimeout", where, chain.request_id),
                timeout_text=job.sequence_timeout,
            )
    _nest(sequences, chain)
    return sequences


def _nest(sequences: dict[str, ChainSequence], chain: JobChain) -> None:
    """Links each sequence to the sequence around it."""
    for sequence_id, sequence in sequences.items():
        parent_id = chain.jobs[sequence_id].parent_sequence_id
        if parent_id:
            sequence.parent = sequences.get(parent_id)
            if sequence.parent is None:
                raise invalid_chain(
                    f"sequence {sequence_id} has the parent sequence {parent_id}, which does not exist",
                    chain.request_id,
                )
            sequence.parent.inner.append(sequence)
    reached = sum(1 for root in sequences.values() if root.parent is None for _ in root.subtree())
    if reached != len(sequences):
        raise invalid_chain("parent sequences form a cycle", chain.request_id)


def _job(chain: JobChain, job_id: str, job: Job, sequences: dict[str, ChainSequence]) -> ChainJob:
    # Chains from another builder may have jobs without a sequence, or with one that does not exist.
    # These jobs get a stand-in sequence, which is never retried.
    sequence = sequences.get(job.sequence_id)
    if sequence is None:
        stand_in = ChainSequence(id="", tries=1, is_own=False)
        sequence = sequences.setdefault(f"\0{job.sequence_id}", stand_in)
    where = f"job {job.name} (ID {job_id}): "
    _duration(job.timeout, "timeout", where, chain.request_id)
    return ChainJob(
        id=job_id,
        name=job.name,
        sequence=sequence,
        retry=job.retry,
        retry_wait=_retry_wait(
            _duration(job.retry_wait, "retryWait", where, chain.request_id),
            job.retry_backoff if job.HasField("retry_backoff") else None,
            f"{where}retryBackoff ",
            chain.request_id,
        ),
        is_task=not connects(job),
        data=from_struct(job.data) if job.HasField("data") else {},
    )


def _check_shape(jobs: dict[str, ChainJob], request_id: str) -> None:
    """Raises InvalidArgumentError if the jobs form a cycle, or have several first or last jobs."""
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
        raise invalid_chain("chain is cyclic", request_id)
    if len(first) > 1:
        raise invalid_chain(
            "job chain has more than one start job (node with indegree count > 0)", request_id
        )
    if sum(not job.children for job in jobs.values()) > 1:
        raise invalid_chain("job chain has more than one end job (node with outdegree count > 0)", request_id)


def _retry_wait(first: int, backoff: RetryBackoff | None, where: str, request_id: str) -> RetryWait:
    if backoff is None:
        return RetryWait(first) if first else NO_WAIT
    factor = backoff.factor or 1.0
    if not 1 <= factor < math.inf:
        raise invalid_chain(f"{where}factor is {factor}: it must be at least 1", request_id)
    longest = _duration(backoff.max, "max", where, request_id) or LONGEST
    return RetryWait(first, factor, longest, backoff.jitter)


def _duration(text: str, field_name: str, where: str, request_id: str) -> int:
    if not text:
        return 0
    try:
        return parse_duration(text)
    except ValueError as error:
        raise invalid_chain(f"{where}{field_name} '{text}' {error}", request_id) from error
