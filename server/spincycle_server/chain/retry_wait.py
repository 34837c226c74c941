"""The pauses before the retries of a job or a sequence, which may grow from one to the next."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

LONGEST = 24 * 3600 * 1_000_000_000
"""The longest pause in nanoseconds if a backoff gives none."""

_HASH_BYTES = 8


@dataclass(frozen=True, slots=True)
class RetryWait:
    """The pauses before the retries of one job or sequence. Durations are in nanoseconds.

    Attributes:
        first: The pause before the first retry.
        factor: The factor between one pause and the next, at least 1.
        longest: The longest pause that the factor leads to.
        has_jitter: Each pause is shortened by up to a half.
    """

    first: int = 0
    factor: float = 1.0
    longest: int = LONGEST
    has_jitter: bool = False

    def before(self, retry: int, part_id: str) -> int:
        """Returns the pause before a retry.

        The jitter depends only on its arguments, because the chain must not differ from one that is rebuilt.

        Args:
            retry: The number of the retry, from 1.
            part_id: What tells jobs and sequences apart that fail at the same time.
        """
        if not self.first:
            return 0
        wait = self._without_jitter(retry)
        if self.has_jitter:
            wait -= int(wait * _fraction(part_id, retry) / 2)
        return wait

    def _without_jitter(self, retry: int) -> int:
        if self.factor == 1:
            return self.first
        longest = max(self.first, self.longest)
        # The power of a large number of retries does not fit a float.
        if (retry - 1) * math.log(self.factor) >= math.log(longest / self.first):
            return longest
        return min(longest, int(self.first * self.factor ** (retry - 1)))


NO_WAIT = RetryWait()


def _fraction(part_id: str, retry: int) -> float:
    """Returns a number from 0 up to 1 that looks random."""
    digest = hashlib.blake2b(f"{part_id} {retry}".encode(), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest, "big") / float(1 << 8 * _HASH_BYTES)
