"""The `finally` parts of a chain: which must still run, and which may run now.

A chain owes a part from the moment at which the sequence before it, its body, begins, until the part is over.
No sequence around it goes on to its next try before that. What is owed follows from the states of the jobs,
so a chain that is resumed or rebuilt owes the same parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from spincycle_grpc.state import State
from spincycle_server.chain.linked_chain import ChainJob, ChainSequence, Phase

_ENDED = frozenset({State.COMPLETE, State.FAIL})


@dataclass(eq=False, slots=True)
class FinalPart:
    """The `finally` part of a sequence.

    Attributes:
        sequence: The sequence of its jobs.
        first: Its first job.
        body: The sequence after which it runs.
        body_first: The first job of that sequence.
        is_owed: It must run before the sequences around it end, or it runs.
    """

    sequence: ChainSequence
    first: ChainJob
    body: ChainSequence
    body_first: ChainJob
    is_owed: bool = False

    @property
    def jobs(self) -> Iterator[ChainJob]:
        """Its jobs, at any depth."""
        return (job for part in self.sequence.subtree() for job in part.jobs)

    @property
    def must_run(self) -> bool:
        """Whether its body has begun: the first job of the body has ended once."""
        return self.body.tries > 1 or self.body_first.state in _ENDED

    @property
    def is_due(self) -> bool:
        """Whether it is to begin, because its body is over."""
        return self.is_owed and not self.has_begun and not (self.body.is_busy or self.body.owed)

    @property
    def has_begun(self) -> bool:
        """Whether its first job has begun, and was not taken back."""
        return self.first.state is not State.PENDING

    @property
    def has_cut(self) -> bool:
        """Whether it has begun although its body is not complete."""
        return self.has_begun and self.first.missing > 0

    @property
    def runs(self) -> bool:
        """Whether a job in it runs, or a sequence in it waits for its next try."""
        return self.sequence.is_busy

    @property
    def is_complete(self) -> bool:
        """Whether all of its jobs are COMPLETE."""
        return self.sequence.is_complete()

    def fails_with(self, sequence: ChainSequence) -> bool:
        """Returns whether it fails if a sequence in it fails, because none of them would be tried again."""
        inside = takewhile(lambda part: part is not self.sequence, sequence.outwards())
        return not any(part.tries <= part.retry for part in inside)

    def owe(self) -> None:
        """Keeps the sequences around it from ending before it has run."""
        if not self.is_owed:
            self._count(1)

    def settle(self) -> None:
        """Lets the sequences around it end, because it has run or need not run."""
        if self.is_owed:
            self._count(-1)

    def _count(self, change: int) -> None:
        self.is_owed = change > 0
        around = self.sequence.parent
        while around is not None:
            around.owed += change
            around = around.parent


class Finals:
    """The `finally` parts of one chain.

    Attributes:
        are_skipped: No part begins any more, and those that run are stopped.
        has_failed: A part has failed while the chain ended, so the chain is FAIL.

    Args:
        parts: The parts.
    """

    __slots__ = ("_ended", "_parts", "are_skipped", "has_failed")

    def __init__(self, parts: list[FinalPart]) -> None:
        self._parts = parts
        self._ended: list[FinalPart] = []
        self.are_skipped = False
        self.has_failed = False

    def __iter__(self) -> Iterator[FinalPart]:
        return iter(self._parts)

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def are_owed(self) -> bool:
        """Whether a part must still run, or runs."""
        return any(part.is_owed for part in self._parts)

    def owe_again(self, parts: Iterable[FinalPart]) -> Iterator[FinalPart]:
        """Finds which of some parts a chain owes that has run before.

        Yields:
            The parts that have cut their bodies. The caller ends each of these bodies before it takes the
            next part.
        """
        for part in parts:
            if not part.must_run or part.is_complete:
                continue
            if any(around.phase is Phase.HELD for around in part.body.outwards()):
                continue
            part.owe()
            if part.has_cut:
                yield part
            elif not part.has_begun:
                part.sequence.tries = part.sequence.elapsed = 0  # Its first try was lost while it began.

    def part_ended(self, part: FinalPart) -> None:
        """Notices a part of which no job runs. It is over, unless its first job is to begin anew."""
        if part.runs:
            return
        if part.has_begun:
            part.settle()
        else:
            self.body_ended(part.body)

    def body_ended(self, body: ChainSequence) -> None:
        """Notices a sequence whose jobs do not run any more, perhaps only for now."""
        part = body.final
        if part is None or not part.is_owed:
            return
        if part.must_run or body.is_busy:
            self._ended.append(part)
        else:  # Its first job was taken back or stopped, so nothing has happened yet.
            part.settle()

    def bodies_ended(self, parts: Iterable[ChainSequence]) -> None:
        """Notices several of them."""
        if self._parts:
            for part in parts:
                self.body_ended(part)

    def all_bodies_ended(self) -> None:
        """Looks at all parts anew."""
        self._ended += [part for part in self._parts if part.is_owed]

    def due(self) -> list[FinalPart]:
        """Returns the parts that are to begin, because what they follow is over. Forgets the others."""
        ended, self._ended = dict.fromkeys(self._ended), []
        return [part for part in ended if part.is_due]
