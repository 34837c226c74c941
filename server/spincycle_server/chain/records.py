"""Rebuilds the state of a chain from its recorded tries, after its runner was lost.

A try that began and did not finish has left no record, and counts as not begun. A sequence that was about to
be retried is retried when the chain starts, because its failed job is still FAIL.
"""

from __future__ import annotations

from collections.abc import Iterable

from spincycle_grpc.state import State
from spincycle_grpc.structs import from_struct
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.runner_reports_pb2 import TryReport
from spincycle_server.chain.linked_chain import ChainJob, ChainSequence, LinkedChain
from spincycle_server.chain.linking import invalid_chain


def replay(parts: LinkedChain, records: Iterable[tuple[int, TryReport]], request_id: str) -> tuple[int, int]:
    """Applies recorded tries to the parts of a chain.

    Args:
        parts: The jobs and sequences as they were before the first record.
        records: The finished tries in the order in which they were committed, each with the epoch of its
            assignment. One clock measured all times within an epoch.
        request_id: The request, for errors.

    Returns:
        The number of COMPLETE jobs, and the nanoseconds for which the chain has run.

    Raises:
        InvalidArgumentError: A record names a job that is not in the chain. Reason: INVALID_JOB_CHAIN.
    """
    chain_time = _RunTime()
    times: dict[str, _RunTime] = {}
    for epoch, tried in records:
        entry = tried.entry
        job = parts.jobs.get(entry.job_id)
        if job is None:
            raise invalid_chain(f"the record names job {entry.job_id}, which is not in the chain", request_id)
        sequence = job.sequence
        if job.id == sequence.id and tried.sequence_try != sequence.tries:
            _begin_again(sequence, tried.sequence_try, times)
        _apply(job, tried)
        chain_time.add(epoch, entry)
        for around in sequence.outwards():
            if around.timeout:
                times.setdefault(around.id, _RunTime()).add(epoch, entry)
    for sequence_id, time in times.items():
        parts.sequences[sequence_id].elapsed += time.elapsed
    return sum(job.state is State.COMPLETE for job in parts.jobs.values()), chain_time.elapsed


def _begin_again(sequence: ChainSequence, sequence_try: int, times: dict[str, _RunTime]) -> None:
    """Resets a sequence and all sequences in it, because its first job ran in a new try of it."""
    for part in sequence.subtree():
        if part is not sequence:
            part.tries = part.elapsed = 0
            times.pop(part.id, None)
        for job in part.jobs:
            if job.state is State.COMPLETE:
                for child in job.children:
                    child.missing += 1
            job.state = State.PENDING
            job.run_tries = 0
    sequence.tries = sequence_try


def _apply(job: ChainJob, tried: TryReport) -> None:
    job.tries = getattr(tried.entry, "try")
    state = tried.entry.state
    if state == state_pb2.STATE_STOPPED:  # A stopped try does not count against the job's retry.
        return
    job.run_tries += 1
    if state != state_pb2.STATE_COMPLETE:
        if tried.is_last or job.run_tries > job.retry:
            job.state = State.FAIL
    elif job.state is not State.COMPLETE:
        job.complete(from_struct(tried.job_data) if tried.HasField("job_data") else None)


class _RunTime:
    """The run time of a chain or sequence: the time from first to last try in each epoch, added up."""

    def __init__(self) -> None:
        self._before = 0
        self._epoch: int | None = None
        self._first = self._last = 0

    def add(self, epoch: int, entry: JobLog) -> None:
        if epoch != self._epoch:
            self._before = self.elapsed
            self._epoch, self._first, self._last = epoch, entry.started_at, entry.started_at
        self._first = min(self._first, entry.started_at)
        self._last = max(self._last, entry.finished_at)

    @property
    def elapsed(self) -> int:
        return self._before + self._last - self._first
