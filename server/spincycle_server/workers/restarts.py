"""When a worker that has ended is started again, and when not."""

from __future__ import annotations

FIRST_PAUSE = 0.2
"""Seconds before the second start, if a worker ended soon after its start."""

LONGEST_PAUSE = 10.0
"""Seconds before a start, at most. The pause doubles each time."""

STABLE = 10.0
"""A worker that served for as many seconds counts as healthy, and is replaced at once."""

MAX_FAILURES = 20
"""How often in a row a worker may end soon after its start. That takes about two minutes."""


class Restarts:
    """Decides about one worker."""

    def __init__(self) -> None:
        self._failures = 0

    def pause(self, served: float) -> float | None:
        """Returns the seconds until the next start; None if the worker has ended too often.

        Args:
            served: Seconds for which the worker that ended has served; 0 if it never listened.
        """
        if served >= STABLE:
            self._failures = 0
            return 0.0
        self._failures += 1
        if self._failures > MAX_FAILURES:
            return None
        pause: float = FIRST_PAUSE * 2 ** (self._failures - 1)
        return min(pause, LONGEST_PAUSE)
