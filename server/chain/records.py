"""A chain rebuilt from the record of its finished tries: what a crashed runner leaves behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from server.chain.actions import Actions
from server.chain.parts import JobPart, Phase, SequencePart, invalid, linked
from server.chain.running_chain import RunningChain
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import JobChain


@dataclass(frozen=True, slots=True)
class TryRecord:
    """One finished try.

    Attributes:
        job_id: The job.
        number: Which try of the job it was, from 1.
        state: How it ended.
        data: The job's data after it, where it is COMPLETE and has any.
        made: Whether the job could be made at all.
    """

    job_id: str
    number: int
    state: State
    data: Mapping[str, Any] | None = None
    made: bool = True


def rebuilt(chain: JobChain, records: Iterable[TryRecord]) -> RunningChain:
    """Returns a chain as it was after some tries. Tries that ran without having finished are lost.

    Args:
        chain: The chain as created.
        records: The tries, in the order in which they finished. The chain may have been suspended,
            lost and resumed in between.

    Raises:
        InvalidArgumentError: The chain is not valid, or has no such job. Reason: INVALID_JOB_CHAIN.
    """
    RunningChain.new(chain)
    replay = _Replay(chain, linked(chain))
    replay.start(0)
    for record in records:
        replay.take(record)
    return RunningChain.resume(replay.suspended(0))


class _Replay(RunningChain):
    """A chain whose waits and limits never end by themselves, and to which tries happen as recorded."""

    def take(self, record: TryRecord) -> None:
        job = self._jobs.get(record.job_id)
        if job is None:
            raise invalid(
                f"there is a record of job {record.job_id}, which the chain has not", self.request_id
            )
        self._let_run(job)
        job.tries = record.number
        if record.state is State.STOPPED:
            job.stopping = True
        self._done = None
        self.try_finished(record.job_id, record.state, 0, data=record.data, made=record.made)

    def _let_run(self, job: JobPart) -> None:
        """Brings a job to where a try of it runs: what the chain waited for before that is over."""
        self._open_waiting(job)
        if job.waits:
            self.wait_over(("job", job.id, job.tries), 0)
        if job.state is State.RUNNING:
            return
        # Its last try, or others of a sequence that goes back, were lost with a runner or stopped.
        for sequence in _around(job):
            if sequence.phase is Phase.DRAINING and (sequence.parent is None or not sequence.parent.frozen):
                self._lose_running(sequence)
        self._open_waiting(job)
        if self.state_of(job.id) is not State.RUNNING:
            job.state = State.RUNNING
            self._enter(job)
            job.run_tries += 1

    def _open_waiting(self, job: JobPart) -> None:
        for sequence in _around(job):
            if sequence.phase is Phase.WAITING:
                self.wait_over(("sequence", sequence.id, sequence.generation), 0)

    def _lose_running(self, sequence: SequencePart) -> None:
        for part in sequence.subtree():
            for job in part.jobs:
                if job.state is State.RUNNING:
                    job.waits = False
                    job.state = State.PENDING
                    self._leave(job, 0, Actions())


def _around(job: JobPart) -> list[SequencePart]:
    """Returns the sequences that a job is in, the innermost first."""
    sequences = []
    sequence: SequencePart | None = job.sequence
    while sequence is not None:
        sequences.append(sequence)
        sequence = sequence.parent
    return sequences
