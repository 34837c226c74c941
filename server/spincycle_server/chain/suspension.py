"""A chain's state as a SuspendedJobChain, and back."""

from __future__ import annotations

from collections.abc import Mapping

from spincycle_grpc.state import State
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
from spincycle_server.chain.parts import JobPart, Parts, SequencePart, invalid

_MESSAGE_STATES = {
    State.PENDING: state_pb2.STATE_PENDING,
    State.RUNNING: state_pb2.STATE_STOPPED,
    State.COMPLETE: state_pb2.STATE_COMPLETE,
    State.FAIL: state_pb2.STATE_FAIL,
    State.STOPPED: state_pb2.STATE_STOPPED,
}
_STATES_TO_RUN = frozenset({State.PENDING, State.RUNNING, State.STOPPED})


def taken(chain: JobChain, parts: Parts, finished_jobs: int, now: int, elapsed: int) -> SuspendedJobChain:
    """Returns what is needed to go on with a chain.

    Args:
        chain: The chain as it was given.
        parts: Its jobs and sequences as they are.
        finished_jobs: How many jobs are COMPLETE.
        now: The time, in nanoseconds.
        elapsed: How long the chain has run, in nanoseconds.
    """
    suspended = SuspendedJobChain(request_id=chain.request_id, job_chain=chain)
    suspended.job_chain.state = state_pb2.STATE_SUSPENDED
    suspended.job_chain.finished_jobs = finished_jobs
    for job_id, message in suspended.job_chain.jobs.items():
        job = parts.jobs[job_id]
        message.state = _MESSAGE_STATES[job.state]
        if job.data:
            message.data.CopyFrom(to_struct(job.data, "data"))
        runs = int(job.state is State.RUNNING and not job.waits)
        if job.tries > runs:
            suspended.total_job_tries[job_id] = job.tries - runs
        if job.run_tries > runs:
            suspended.latest_run_job_tries[job_id] = job.run_tries - runs
    for sequence_id, sequence in parts.sequences.items():
        if not sequence.is_own or not sequence.tries:
            continue
        suspended.sequence_tries[sequence_id] = sequence.tries
        if sequence.timeout:
            suspended.sequence_elapsed_ms[sequence_id] = _elapsed(sequence, now) // 1_000_000
    if parts.timeout:
        suspended.elapsed_ms = elapsed // 1_000_000
    return suspended


def restore(suspended: SuspendedJobChain, parts: Parts) -> int:
    """Sets the parts of a suspended chain to where they were; jobs that ran or were stopped are PENDING.

    Returns:
        How many jobs are COMPLETE.

    Raises:
        InvalidArgumentError: A job is in no state that it can be in, or a counter does not fit.
    """
    chain = suspended.job_chain
    if suspended.request_id != chain.request_id:
        raise invalid(
            f"suspended chain of request {suspended.request_id!r} has the job chain of {chain.request_id!r}",
            suspended.request_id,
        )
    for job_id, message in chain.jobs.items():
        _restore_state(parts.jobs[job_id], message.state, chain.request_id)
    finished = sum(job.state is State.COMPLETE for job in parts.jobs.values())
    if finished != chain.finished_jobs:
        raise invalid(
            f"FinishedJobs = {chain.finished_jobs} but there are {finished} jobs with state = COMPLETE",
            chain.request_id,
        )
    _check_known("totalJobTries", suspended.total_job_tries, parts.jobs, chain.request_id)
    _check_known("latestRunJobTries", suspended.latest_run_job_tries, parts.jobs, chain.request_id)
    _check_known("sequenceTries", suspended.sequence_tries, parts.sequences, chain.request_id)
    _check_known("sequenceElapsedMs", suspended.sequence_elapsed_ms, parts.sequences, chain.request_id)
    for job_id, tries in suspended.latest_run_job_tries.items():
        parts.jobs[job_id].run_tries = parts.jobs[job_id].tries = tries
    for job_id, tries in suspended.total_job_tries.items():
        parts.jobs[job_id].tries = max(tries, parts.jobs[job_id].tries)
    for sequence_id, tries in suspended.sequence_tries.items():
        parts.sequences[sequence_id].tries = tries
    for sequence_id, elapsed in suspended.sequence_elapsed_ms.items():
        parts.sequences[sequence_id].elapsed = elapsed * 1_000_000
    return finished


def _restore_state(job: JobPart, state: int, request_id: str) -> None:
    if state == State.COMPLETE:
        job.state = State.COMPLETE
        for child in job.children:
            child.missing -= 1
    elif state == State.FAIL:
        job.state = State.FAIL
    elif state not in _STATES_TO_RUN:
        raise invalid(f"job {job.name} (ID {job.id}) has state {state}, which no job can have", request_id)


def _check_known(
    counter: str,
    counts: Mapping[str, int],
    known: Mapping[str, JobPart] | Mapping[str, SequencePart],
    request_id: str,
) -> None:
    for part_id in counts:
        if part_id not in known:
            raise invalid(f"{counter} has {part_id!r}, which the job chain has not", request_id)


def _elapsed(sequence: SequencePart, now: int) -> int:
    return sequence.elapsed + (now - sequence.began if sequence.began is not None else 0)
