"""What a running chain wants done next. Whoever drives it does so, and tells it of what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from spincycle_grpc.state import State


@dataclass(frozen=True, slots=True)
class Run:
    """Run one try of a job.

    Attributes:
        job_id: The job.
        number: Counts the tries of the job over the whole request, from 1.
        sequence_try: Which try of the job's sequence this is in, from 1.
    """

    job_id: str
    number: int
    sequence_try: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait, then say that the wait is over. A stale one is ignored, so that none needs to be cancelled.

    Attributes:
        key: Tells waits apart: whose it is, and which one of these.
        nanoseconds: How long.
    """

    key: tuple[str, str, int]
    nanoseconds: int


@dataclass(frozen=True, slots=True)
class Timer:
    """Let a limit run, then say that it is over. Like a wait, but the chain may end before it.

    Attributes:
        key: Tells timers apart.
        nanoseconds: How long.
    """

    key: tuple[str, str, int]
    nanoseconds: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the running try of a job.

    Attributes:
        job_id: The job.
        error: Why its try is a FAIL, for its log; "" where it is just stopped.
    """

    job_id: str
    error: str = ""


@dataclass(slots=True)
class Actions:
    """All that is to be done after one event.

    Attributes:
        run: Tries to run now, side by side.
        wait: Waits to begin.
        timers: Limits that begin.
        stop: Running tries to stop, side by side.
        done: How the chain has ended, or SUSPENDED; None while it goes on.
    """

    run: list[Run] = field(default_factory=list)
    wait: list[Wait] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)
    stop: list[Stop] = field(default_factory=list)
    done: State | None = None
