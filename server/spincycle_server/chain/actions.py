"""The actions that a running chain asks for. The driver carries them out and reports back as events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from spincycle_grpc.state import State


class Run(NamedTuple):  # Each try has one, and a frozen dataclass takes twice as long.
    """Run one try of a job.

    Attributes:
        job_id: The job.
        number: Number of the try within the whole request, from 1.
        sequence_try: Number of the try of the job's sequence, from 1.
    """

    job_id: str
    number: int
    sequence_try: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Call `wait_over` after the given time. The chain does not end while it waits.

    The chain ignores stale waits, so the driver need not cancel them.

    Attributes:
        key: Identifies the wait.
        nanoseconds: The length of the wait.
    """

    key: tuple[str, str, int]
    nanoseconds: int


@dataclass(frozen=True, slots=True)
class Timer:
    """Call `timer_over` when a timeout expires. Unlike with a `Wait`, the chain may end before that.

    Attributes:
        key: Identifies the timer.
        nanoseconds: Time until the timeout.
    """

    key: tuple[str, str, int]
    nanoseconds: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the running try of a job.

    Attributes:
        job_id: The job.
        error: The error for the try's log entry, which makes the try FAIL; "" makes it STOPPED.
        is_final: Whether the job must not be tried again if the try fails.
    """

    job_id: str
    error: str = ""
    is_final: bool = False


class Actions:
    """All actions that follow from one event.

    Attributes:
        run: Tries to run now, in parallel.
        wait: Waits to begin.
        timers: Timers to begin.
        stop: Running tries to stop, in parallel.
        release: The sequences that give up their keys. This comes before `claim`.
        claim: The sequences that need their keys from now on, in the order in which to ask for them. No try
            in them may begin before they hold these.
        unneeded: Jobs with a running try in a sequence that begins its next try once they have ended. A try
            that waits for keys should end as STOPPED and taken back, so that the sequence need not wait.
        done: The final state of the chain, or SUSPENDED; None while the chain continues.
    """

    __slots__ = ("claim", "done", "release", "run", "stop", "timers", "unneeded", "wait")

    def __init__(self) -> None:
        # Not a dataclass: each event makes one, and seven default factories take three times as long.
        self.run: list[Run] = []
        self.wait: list[Wait] = []
        self.timers: list[Timer] = []
        self.stop: list[Stop] = []
        self.release: list[str] = []
        self.claim: list[str] = []
        self.unneeded: list[str] = []
        self.done: State | None = None

    def add(self, later: Actions) -> None:
        """Adds the actions of a later event."""
        self.run += later.run
        self.wait += later.wait
        self.timers += later.timers
        self.stop += later.stop
        # What was claimed just now, and is not needed any more, need not be asked for.
        self.release += [one for one in later.release if one not in self.claim]
        self.claim = [one for one in self.claim if one not in later.release] + later.claim
        self.unneeded += later.unneeded
        self.done = later.done
