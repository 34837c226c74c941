"""A chain put back to where its finished tries had brought it: what a runner that died leaves behind.

Tries that had begun and not finished are as if they had not begun. A sequence that was about to go
back goes back when the chain starts, since its failed job is still there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spincycle_grpc.state import State
from spincycle_server.chain.linked_chain import ChainJob, ChainSequence, LinkedChain
from spincycle_server.chain.linking import invalid_chain


@dataclass(frozen=True, slots=True)
class TryRecord:
    """One finished try.

    Attributes:
        job_id: The job.
        number: Which try of the job it was, from 1.
        sequence_try: Which try of the job's sequence it was in, from 1.
        state: How it ended.
        data: The job's data after it, where it is COMPLETE and has any.
        is_last: Whether it failed for good, whatever the job's retry is.
        epoch: The assignment that it ran in; one clock told the times of all tries of an assignment.
        started_at: When it began, in nanoseconds.
        finished_at: When it ended, in nanoseconds.
    """

    job_id: str
    number: int
    sequence_try: int
    state: State
    data: Mapping[str, Any] | None = None
    is_last: bool = False
    epoch: int = 0
    started_at: int = 0
    finished_at: int = 0


def replay(parts: LinkedChain, records: Iterable[TryRecord], request_id: str) -> tuple[int, int]:
    """Sets the parts of a chain to where records have brought it.

    Args:
        parts: The jobs and sequences, all PENDING or as they were before the first record.
        records: The tries, in the order in which they were taken in.
        request_id: The request, for errors.

    Returns:
        How many jobs are COMPLETE, and for how many nanoseconds the chain has run.

    Raises:
        InvalidArgumentError: A record is of a job that the chain has not. Reason: INVALID_JOB_CHAIN.
    """
    chain_time = _Time()
    times: dict[str, _Time] = {}
    for record in records:
        job = parts.jobs.get(record.job_id)
        if job is None:
            raise invalid_chain(
                f"there is a record of job {record.job_id}, which the chain has not", request_id
            )
        sequence = job.sequence
        if job.id == sequence.id and record.sequence_try != sequence.tries:
            _begin_again(sequence, record.sequence_try, times)
        _take(job, record)
        chain_time.add(record)
        for around in _around(sequence):
            if around.timeout:
                times.setdefault(around.id, _Time()).add(record)
    for sequence_id, time in times.items():
        parts.sequences[sequence_id].elapsed += time.elapsed
    return sum(job.state is State.COMPLETE for job in parts.jobs.values()), chain_time.elapsed


def _begin_again(sequence: ChainSequence, sequence_try: int, times: dict[str, _Time]) -> None:
    """Sets all in a sequence back: its first job has run in a try that was not known of yet."""
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


def _take(job: ChainJob, record: TryRecord) -> None:
    job.tries = record.number
    if record.state is State.STOPPED:
        return
    job.run_tries += 1
    if record.state is not State.COMPLETE:
        if record.is_last or job.run_tries > job.retry:
            job.state = State.FAIL
    elif job.state is not State.COMPLETE:
        job.complete(record.data)


def _around(sequence: ChainSequence) -> Iterator[ChainSequence]:
    """Goes through the sequences that a job is in, the innermost first."""
    part: ChainSequence | None = sequence
    while part is not None:
        yield part
        part = part.parent


class _Time:
    """For how long something ran: from the first try to the last one of each assignment, added up."""

    def __init__(self) -> None:
        self._before = 0
        self._epoch: int | None = None
        self._first = self._last = 0

    def add(self, record: TryRecord) -> None:
        if record.epoch != self._epoch:
            self._before = self.elapsed
            self._epoch, self._first, self._last = record.epoch, record.started_at, record.started_at
        self._first = min(self._first, record.started_at)
        self._last = max(self._last, record.finished_at)

    @property
    def elapsed(self) -> int:
        return self._before + self._last - self._first
