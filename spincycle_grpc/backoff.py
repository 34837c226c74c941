"""The pauses between the tries of an operation."""

from __future__ import annotations

import math
import random


class Backoff:
    """The pauses between tries: each is longer than the one before, up to a maximum.

    Args:
        first: The first pause, in seconds.
        longest: The longest pause, in seconds.
        growth: The factor from each pause to the next.
        jitter: The largest fraction by which a pause is shortened at random, from 0 to 1. It spreads
            the retries of callers that failed at the same moment.
    """

    def __init__(self, first: float, longest: float, *, growth: float = 2.0, jitter: float = 0.5) -> None:
        self._first = first
        self._longest = longest
        self._growth = growth
        self._jitter = jitter
        self._next = first

    def next(self, at_most: float = math.inf) -> float:
        """Returns the seconds to pause before the next try.

        Args:
            at_most: The longest pause that the caller can afford now, in seconds.
        """
        pause = min(self._next, at_most)
        self._next = min(self._next * self._growth, self._longest)
        return pause * random.uniform(1 - self._jitter, 1)  # noqa: S311 (spreads callers, protects no secret)

    def reset(self) -> None:
        """Starts again with the first pause, after a success."""
        self._next = self._first
