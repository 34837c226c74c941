"""A replacement for the module `time` in a module under test."""

from __future__ import annotations

import time


class FakeTime:
    """Time passes only when the test or the code under test sleeps, and a little at each look at the clock.

    Attributes:
        now: What `monotonic` returned last, in seconds.
        pauses: The seconds of each sleep.
    """

    time_ns = staticmethod(time.time_ns)

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        """Returns the time in seconds."""
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        """Lets the time pass."""
        self.now += seconds
        self.pauses.append(seconds)
