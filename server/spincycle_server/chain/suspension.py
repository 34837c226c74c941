"""The state of a chain as a SuspendedJobChain message, and back."""

from __future__ import annotations

from collections.abc import Mapping

from spincycle_grpc.state import State
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
from spincycle_server.chain.linked_chain import ChainJob, ChainSequence, LinkedChain
from spincycle_server.chain.linking import invalid_chain

_MESSAGE_STATES = {
    State.PENDING: state_pb2.STATE_PENDING,
    State.RUNNING: state_pb2.STATE_PENDING,
    State.COMPLETE: state_pb2.STATE_COMPLETE,
    State.FAIL: state_pb2.STATE_FAIL,
    State.STOPPED: state_pb2.STATE_PENDING,
}
_STATES_TO_RUN = frozenset({State.PENDING, State.RUNNING, State.STOPPED})
_NANOSECONDS_PER_MILLISECOND = 1_000_000


def suspended_chain(
    chain: JobChain, linked: LinkedChain, finished_jobs: int, now: int, elapsed: int
) -> SuspendedJobChain:
    """Returns the message from which `restore` continues a chain. Jobs that ran or were stopped are PENDING.

    Args:
        chain: The chain as created.
        linked: Its jobs and sequences in their current state.
        finished_jobs: How many jobs are COMPLETE.
        now: The current time, in nanoseconds.
        elapsed: How long the chain has run, in nanoseconds.
    """
    suspended = SuspendedJobChain(request_id=chain.request_id, job_chain=chain)
    suspended.job_chain.state = state_pb2.STATE_SUSPENDED
    suspended.job_chain.finished_jobs = finished_jobs
    for job_id, message in suspended.job_chain.jobs.items():
        job = linked.jobs[job_id]
        message.state = _MESSAGE_STATES[job.state]
        if job.state is State.STOPPED and job.try_stopped:
            suspended.stopped_jobs.append(job_id)
        if job.data:
            message.data.CopyFrom(to_struct(job.data, "data"))
        running_tries = int(job.state is State.RUNNING and not job.waits)
        if job.tries > running_tries:
            suspended.total_job_tries[job_id] = job.tries - running_tries
        if job.run_tries > running_tries:
            suspended.latest_run_job_tries[job_id] = job.run_tries - running_tries
    for sequence_id, sequence in linked.sequences.items():
        if not sequence.is_own or not sequence.tries:
            continue
        suspended.sequence_tries[sequence_id] = sequence.tries
        if sequence.timeout:
            suspended.sequence_elapsed_ms[sequence_id] = (
                _elapsed(sequence, now) // _NANOSECONDS_PER_MILLISECOND
            )
    if linked.timeout:
        suspended.elapsed_ms = elapsed // _NANOSECONDS_PER_MILLISECOND
    return suspended


def restore(suspended: SuspendedJobChain, linked: LinkedChain) -> int:
    """Restores the jobs and sequences of a suspended chain. STOPPED jobs become PENDING.

    Returns:
        How many jobs are COMPLETE.

    Raises:
        InvalidArgumentError: A job has an impossible state, or a counter does not fit the chain.
            Reason: INVALID_JOB_CHAIN.
    """
    chain = suspended.job_chain
    if suspended.request_id != chain.request_id:
        raise invalid_chain(
            f"suspended chain of request {suspended.request_id!r} has the job chain of request "
            f"{chain.request_id!r}",
            suspended.request_id,
        )
    for job_id, message in chain.jobs.items():
        _restore_state(linked.jobs[job_id], message.state, chain.request_id)
    finished = sum(job.state is State.COMPLETE for job in linked.jobs.values())
    if finished != chain.finished_jobs:
        raise invalid_chain(
            f"FinishedJobs = {chain.finished_jobs} but there are {finished} jobs with state = COMPLETE",
            chain.request_id,
        )
    _restore_counters(suspended, linked)
    return finished


def _restore_counters(suspended: SuspendedJobChain, linked: LinkedChain) -> None:
    request_id = suspended.request_id
    _check_known("totalJobTries", suspended.total_job_tries, linked.jobs, request_id)
    _check_known("latestRunJobTries", suspended.latest_run_job_tries, linked.jobs, request_id)
    _check_known("sequenceTries", suspended.sequence_tries, linked.sequences, request_id)
    _check_known("sequenceElapsedMs", suspended.sequence_elapsed_ms, linked.sequences, request_id)
    for job_id, tries in suspended.latest_run_job_tries.items():
        linked.jobs[job_id].run_tries = linked.jobs[job_id].tries = tries
    for job_id, tries in suspended.total_job_tries.items():
        linked.jobs[job_id].tries = max(tries, linked.jobs[job_id].tries)
    for sequence_id, tries in suspended.sequence_tries.items():
        linked.sequences[sequence_id].tries = tries
    for sequence_id, elapsed in suspended.sequence_elapsed_ms.items():
        linked.sequences[sequence_id].elapsed = elapsed * _NANOSECONDS_PER_MILLISECOND


def _restore_state(job: ChainJob, state: int, request_id: str) -> None:
    if state == State.COMPLETE:
        job.state = State.COMPLETE
        for child in job.children:
            child.missing -= 1
    elif state == State.FAIL:
        job.state = State.FAIL
    elif state not in _STATES_TO_RUN:
        raise invalid_chain(
            f"job {job.name} (ID {job.id}) has state {state}, which no job can have", request_id
        )


def _check_known(
    counter: str,
    counts: Mapping[str, int],
    known: Mapping[str, ChainJob] | Mapping[str, ChainSequence],
    request_id: str,
) -> None:
    for part_id in counts:
        if part_id not in known:
            raise invalid_chain(
                f"{counter} has the ID {part_id!r}, which is not in the job chain", request_id
            )


def _elapsed(sequence: ChainSequence, now: int) -> int:
    return sequence.elapsed + (now - sequence.began if sequence.began is not None else 0)
