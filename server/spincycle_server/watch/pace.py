"""How soon rounds of reading may follow each other."""

from __future__ import annotations

import math

SHARE = 0.2
"""The share of the time that rounds take, if watched requests change all the time."""

BURST = 0.1
"""Seconds for whose share rounds may follow each other at once, after a time with fewer rounds."""

MAX_OWED = 1.0
"""Seconds of pauses that rounds can owe. So they may follow each other at once again soon after slow ones."""


class Pace:
    """Limits the share of the time that rounds take. After a quiet time, the next ones come at once."""

    def __init__(self) -> None:
        self._paid_at = -math.inf  # when the rounds so far have taken no more than their share

    def pause(self, began: float, ended: float) -> float:
        """Returns the seconds until the next round may begin.

        Args:
            began: When the last round began, in seconds.
            ended: When it ended.
        """
        paid_at = max(self._paid_at, began) + (ended - began) / SHARE
        self._paid_at = min(paid_at, ended + BURST + MAX_OWED)
        return max(0.0, self._paid_at - BURST - ended)
