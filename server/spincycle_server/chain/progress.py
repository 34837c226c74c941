"""The progress of a running chain: what runs, what waits, what is complete, and the steps that change it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spincycle_grpc.state import State
from spincycle_server.chain.linked_chain import ChainJob, ChainSequence, Phase


class Progress:
    """Counters of one chain, kept correct while its jobs and sequences change.

    Attributes:
        running: How many jobs run. A job between two tries runs.
        waiting_sequences: How many sequences wait for their next try.
        finished: How many jobs are COMPLETE.
        finished_tasks: How many of them do more than to connect other jobs.
    """

    __slots__ = ("finished", "finished_tasks", "running", "waiting_sequences")

    def __init__(self) -> None:
        self.running = 0
        self.waiting_sequences = 0
        self.finished = 0
        self.finished_tasks = 0

    def enter(self, job: ChainJob) -> None:
        """Counts a job that begins to run, in all sequences around it."""
        self.running += 1
        sequence: ChainSequence | None = job.sequence
        while sequence is not None:
            sequence.active += 1
            if sequence.active > 1:
                return
            sequence = sequence.parent

    def leave(self, job: ChainJob) -> list[ChainSequence]:
        """Stops counting an ended job. Returns the sequences that became idle, the innermost first."""
        self.running -= 1
        idle: list[ChainSequence] = []
        sequence: ChainSequence | None = job.sequence
        while sequence is not None:
            sequence.active -= 1
            if sequence.active:
                break
            idle.append(sequence)
            if sequence.hold is not None:
                sequence.hold.touch()
            sequence = sequence.parent
        return idle

    def complete(self, job: ChainJob, data: Mapping[str, Any] | None) -> list[ChainJob]:
        """Makes a job COMPLETE and returns the jobs that this makes ready."""
        self.finished += 1
        self.finished_tasks += job.is_task
        return job.complete(data)

    def freeze(self, sequence: ChainSequence, phase: Phase) -> None:
        """Keeps all jobs of a sequence from starting and ends the waits of the sequences in it.

        The `finally` parts in it run nevertheless, unless it is held.
        """
        for part in sequence.subtree() if phase is Phase.HELD else sequence.without_finals():
            part.frozen = True
            if part.phase is Phase.WAITING:
                self.end_wait(part)
        sequence.phase = phase

    def reset(self, sequence: ChainSequence) -> None:
        """Begins a new try of a sequence: resets its jobs and inner sequences. The jobs keep their data."""
        for part in sequence.subtree():
            part.phase = Phase.OPEN
            if part is not sequence:
                part.tries = part.elapsed = 0
                part.began = None
                part.lifetime += 1
            for job in part.jobs:
                if job.state is State.COMPLETE:
                    self.finished -= 1
                    self.finished_tasks -= job.is_task
                job.reset()
        for part in sequence.subtree():
            for window in part.windows:
                window.recount()
        sequence.tries += 1

    def begin_wait(self, sequence: ChainSequence) -> None:
        """Makes a sequence wait for its next try."""
        self._count_wait(sequence, 1)
        sequence.phase = Phase.WAITING
        sequence.generation += 1

    def end_wait(self, sequence: ChainSequence) -> None:
        """Ends the wait of a sequence. A `Wait` action that is still pending becomes stale."""
        self._count_wait(sequence, -1)
        sequence.phase = Phase.OPEN
        sequence.generation += 1

    def _count_wait(self, sequence: ChainSequence, change: int) -> None:
        self.waiting_sequences += change
        for around in sequence.outwards():
            around.waiting += change
            if change < 0 and around.hold is not None:
                around.hold.touch()


def thaw(sequence: ChainSequence) -> None:
    """Opens a sequence again. Its jobs may start unless a sequence around it is frozen."""
    sequence.phase = Phase.OPEN
    if sequence.parent is not None and sequence.parent.frozen:
        return
    stack = [sequence]
    while stack:
        part = stack.pop()
        if part.phase is not Phase.HELD:
            part.frozen = False
            stack += part.inner
