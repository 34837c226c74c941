"""The jobs and sequences of a running chain, as objects that refer to each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from spincycle_grpc.state import State
from spincycle_server.chain.retry_wait import NO_WAIT, RetryWait

if TYPE_CHECKING:
    from spincycle_grpc.v1.job_pb2 import Job
    from spincycle_server.chain.finals import FinalPart
    from spincycle_server.chain.keys import Hold, Keys
    from spincycle_server.chain.windows import Element, Window

_PENDING = State.PENDING.value


class Phase(Enum):
    """The phase that a sequence is in, within its tries."""

    OPEN = auto()
    """Its jobs run as soon as they are ready."""

    DRAINING = auto()
    """It failed and has tries left. The next try begins after its running jobs have ended."""

    WAITING = auto()
    """It waits `retry_wait` before its next try."""

    EXPIRED = auto()
    """It has timed out."""

    CUT = auto()
    """Its `finally` part has begun although it is not complete."""

    HELD = auto()
    """An earlier request has run a part of it. The rest runs when its window lets it begin."""


@dataclass(eq=False, slots=True)
class ChainSequence:
    """A sequence of a running chain. Durations are in nanoseconds.

    Attributes:
        parent: The sequence around this one.
        jobs: The jobs directly in it.
        inner: The sequences directly in it.
        tries: How many tries it has begun since the parent's current try began.
        active: How many of its jobs run, plus how many of its inner sequences are active.
        waiting: How many sequences wait before their next try, of this one and all sequences in it.
        frozen: No job may start: this sequence or one around it drains, waits, is held or has expired.
        generation: Number of the current wait. It makes older waits stale.
        lifetime: How often a sequence around this one was reset. It makes older timers stale.
        is_own: False for the stand-in that holds jobs without a sequence.
        began: The driver's time at which the timeout began to run, or None if it does not run.
        elapsed: Time that the sequence ran before `began`.
        windows: The windows directly in it.
        element: The element of a window that it belongs to; None if it belongs to none.
        final: The `finally` part that follows it; None without one.
        in_final: The `finally` part whose jobs it has, all or some of them; None if it is in none.
        owed: How many `finally` parts in it are owed.
        receivers: The first jobs of the `finally` parts of this sequence and those around it.
        hold: Its keys; None if it has none that no sequence around it holds.
        holds: The keys of this sequence and those around it, the outermost first.
    """

    id: str
    retry: int = 0
    retry_wait: RetryWait = NO_WAIT
    timeout: int = 0
    timeout_text: str = ""
    parent: ChainSequence | None = None
    jobs: list[ChainJob] = field(default_factory=list)
    inner: list[ChainSequence] = field(default_factory=list)
    phase: Phase = Phase.OPEN
    tries: int = 0
    active: int = 0
    waiting: int = 0
    frozen: bool = False
    generation: int = 0
    lifetime: int = 0
    is_own: bool = True
    began: int | None = None
    elapsed: int = 0
    windows: list[Window] = field(default_factory=list)
    element: Element | None = None
    final: FinalPart | None = None
    in_final: FinalPart | None = None
    owed: int = 0
    receivers: tuple[ChainJob, ...] = ()
    hold: Hold | None = None
    holds: tuple[Hold, ...] = ()

    def subtree(self) -> Iterator[ChainSequence]:
        """Yields this sequence and all sequences in it, at any depth."""
        stack = [self]
        while stack:
            sequence = stack.pop()
            yield sequence
            stack += sequence.inner

    def without_finals(self) -> Iterator[ChainSequence]:
        """Yields this sequence and all sequences in it, except `finally` parts in it."""
        stack = [self]
        while stack:
            sequence = stack.pop()
            yield sequence
            stack += [inner for inner in sequence.inner if not inner.is_final_part]

    def outwards(self) -> Iterator[ChainSequence]:
        """Yields this sequence and those around it, the innermost first."""
        part: ChainSequence | None = self
        while part is not None:
            yield part
            part = part.parent

    @property
    def is_final_part(self) -> bool:
        """Whether it has all jobs of a `finally` part."""
        return self.in_final is not None and self.in_final.sequence is self

    @property
    def is_busy(self) -> bool:
        """Whether a job in it runs, or a sequence in it waits for its next try."""
        return bool(self.active or self.waiting)

    @property
    def depth(self) -> int:
        """How many sequences there are from the outermost one to this one."""
        return sum(1 for _ in self.outwards())

    def is_complete(self) -> bool:
        """Returns whether all jobs in it are COMPLETE, at any depth."""
        return all(job.state is State.COMPLETE for part in self.subtree() for job in part.jobs)


@dataclass(eq=False, slots=True)
class ChainJob:
    """A job of a running chain.

    Attributes:
        retry_wait: The pauses between two tries.
        is_task: It does more than to connect other jobs.
        children: The jobs that directly depend on this one.
        missing: How many jobs that this one directly depends on are not COMPLETE.
        tries: How many tries the job has had over the whole request.
        run_tries: How many tries it has had in the current try of its sequence, without stopped ones.
        waits: The job is between two tries.
        stopping: The running try was told to stop.
        try_stopped: The latest try ended STOPPED.
        expired: The job was stopped because a sequence or the request timed out.
        element: The element of a window whose first or last job it is; None if it is none.
    """

    id: str
    name: str
    sequence: ChainSequence
    retry: int
    retry_wait: RetryWait
    is_task: bool
    data: dict[str, Any]
    state: State = State.PENDING
    children: list[ChainJob] = field(default_factory=list)
    missing: int = 0
    tries: int = 0
    run_tries: int = 0
    waits: bool = False
    stopping: bool = False
    try_stopped: bool = False
    expired: bool = False
    element: Element | None = None

    def complete(self, data: Mapping[str, Any] | None) -> list[ChainJob]:
        """Makes the job COMPLETE, passes its data on, and returns the children that are now ready.

        Its children get the data, and the `finally` parts of the sequences around it.
        """
        self.state = State.COMPLETE
        if data is not None:
            self.data = dict(data)
        ready = []
        for child in self.children:
            if self.data:
                child.data = {**child.data, **self.data}
            child.missing -= 1
            if not child.missing:
                ready.append(child)
        for first in self.sequence.receivers:
            first.data.update(self.data)
        return ready

    def reset(self) -> None:
        """Makes the job PENDING for a new try of its sequence. It keeps its data and its number of tries."""
        if self.state is State.COMPLETE:
            for child in self.children:
                child.missing += 1
        self.state = State.PENDING
        self.run_tries = 0
        self.try_stopped = self.expired = False


@dataclass(slots=True)
class MarkedJobs:
    """The jobs of a chain with marks that most jobs do not have, by id.

    Attributes:
        approvals: Those that wait for an approval.
        of_finals: Those of `finally` parts.
        limited: The first jobs of sequences with limits.
        begun: Those that are not PENDING.
    """

    approvals: set[str] = field(default_factory=set)
    of_finals: list[str] = field(default_factory=list)
    limited: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)

    def add(self, job_id: str, message: Job) -> None:
        """Adds a job to the lists in which it belongs."""
        if message.HasField("approval"):
            self.approvals.add(job_id)
        if message.is_finally:
            self.of_finals.append(job_id)
        if message.sequence_limits:
            self.limited.append(job_id)
        if message.state != _PENDING:
            self.begun.append(job_id)


@dataclass(slots=True)
class LinkedChain:
    """The parts of a chain.

    Attributes:
        jobs: The jobs by id.
        sequences: The sequences by id.
        timeout: The timeout of the chain in nanoseconds; 0 for none.
        windows: The sliding windows. Those within an element of another one come first.
        finals: The `finally` parts, those within others' sequences first.
        keys: The keys of its sequences.
        marked: The jobs with marks, as the message has them.
    """

    jobs: dict[str, ChainJob]
    sequences: dict[str, ChainSequence]
    timeout: int
    windows: list[Window]
    finals: list[FinalPart]
    keys: Keys
    marked: MarkedJobs

    def release(self) -> None:
        """Cuts the circles of references, so that no memory waits for the garbage collector.

        The jobs stay as they are. The sequences, windows and keys must not be used afterwards.
        """
        for sequence in self.sequences.values():
            sequence.jobs.clear()
            sequence.inner.clear()
            sequence.windows.clear()
            sequence.element = sequence.final = sequence.in_final = sequence.hold = None
            sequence.receivers = sequence.holds = ()
        for window in self.windows:
            for element in window.elements:
                element.first.element = element.last.element = None
            window.elements.clear()
        self.keys.holds.clear()
