"""Sliding windows: which elements of an `each` may run.

What a window knows follows from the states of the jobs alone, so a chain that is resumed or rebuilt runs the
same elements. `Window.recount` derives it all. `Window.look_at` keeps it up to date, at constant cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from spincycle_grpc.state import State
from spincycle_server.chain.linked_chain import ChainJob, ChainSequence, Phase

_ENDED = frozenset({State.FAIL, State.STOPPED})


@dataclass(eq=False, slots=True)
class Element:
    """One element of a window.

    Attributes:
        window: The window.
        number: Its place in the order in which elements begin, from 0.
        first: Its first job.
        last: Its last job.
        sequence: The sequence with all of its jobs, except perhaps the first and the last; None if the
            element is a single job.
        is_running: It counts as running.
        has_failed: It counts as failed.
    """

    window: Window
    number: int
    first: ChainJob
    last: ChainJob
    sequence: ChainSequence | None
    is_running: bool = False
    has_failed: bool = False

    @property
    def is_sequence(self) -> bool:
        """Whether its first job is also the first one of its sequence."""
        return self.first.sequence is self.sequence

    @property
    def is_held(self) -> bool:
        """Whether an earlier request has run a part of it, and this request nothing yet."""
        return self.sequence is not None and self.sequence.phase is Phase.HELD

    @property
    def has_begun(self) -> bool:
        """Whether it has begun, in this request and in the current try of the sequence around the window."""
        if self.first.state is not State.PENDING:
            return not self.is_held
        if self.first.run_tries:
            return True
        return self.is_sequence and self.first.sequence.tries > 1

    @property
    def is_stuck(self) -> bool:
        """Whether it has begun and is not COMPLETE, and nothing in it runs or will run."""
        sequence = self.sequence
        if self.first.state in _ENDED and not self.is_sequence:
            return True
        if sequence is None or self.first.state in (State.PENDING, State.RUNNING):
            return False
        if sequence.active or sequence.waiting or sequence.owed:
            return False
        if sequence.phase not in (Phase.OPEN, Phase.EXPIRED):
            return False
        return self.last.state in _ENDED or self.last.missing > 0

    @property
    def may_be_held(self) -> bool:
        """Whether a part of it, but not all, is COMPLETE, and this request has run none of its jobs."""
        if self.sequence is None or self.first.state is not State.COMPLETE or self.first.tries:
            return False
        if self.last.state is State.COMPLETE or not (self.is_sequence or self.last.missing):
            return False
        return not any(job.tries for part in self.sequence.subtree() for job in part.jobs)


@dataclass(eq=False, slots=True)
class Window:
    """A window.

    Attributes:
        sequence: The sequence around it.
        most: The maximum number of elements that run at the same time.
        stop_after: After so many elements have failed, no further one begins; 0 for any number.
        elements: The elements in the order in which they begin.
        running: How many elements run.
        failed: How many elements have failed.
        next: All elements before this one have begun.
        is_counted: The counts are right. Otherwise no element begins, until `recount`.
    """

    sequence: ChainSequence
    most: int
    stop_after: int
    elements: list[Element] = field(default_factory=list)
    running: int = 0
    failed: int = 0
    next: int = 0
    is_counted: bool = False

    def to_begin(self) -> Iterator[Element]:
        """Yields the elements that may begin now. The caller begins each before it takes the next one."""
        while self.is_counted and self.next < len(self.elements):
            element = self.elements[self.next]
            if not element.has_begun:
                if not self._may_begin(element):
                    return
                element.is_running = True
                self.running += 1
                yield element
                self.look_at(element)
            if self.next == element.number:  # The caller may have gone on already.
                self.next += 1

    def _may_begin(self, element: Element) -> bool:
        is_over = 0 < self.stop_after <= self.failed
        is_ready = element.is_held or not element.first.missing
        return is_ready and self.running < self.most and not is_over

    def look_at(self, element: Element) -> None:
        """Notices that an element has begun, has ended, has failed, or has been kept from beginning."""
        has_begun = element.has_begun
        if not has_begun:
            self.next = min(self.next, element.number)
        is_open = has_begun and element.last.state is not State.COMPLETE
        has_failed = is_open and element.is_stuck
        is_running = is_open and not has_failed
        self.running += is_running - element.is_running
        self.failed += has_failed - element.has_failed
        element.is_running, element.has_failed = is_running, has_failed

    def recount(self) -> None:
        """Derives everything from the states of the jobs."""
        self.is_counted = True
        self.next = 0
        for element in self.elements:
            self.look_at(element)
