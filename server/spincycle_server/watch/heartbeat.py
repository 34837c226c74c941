"""When a stream without messages needs a sign of life."""

from __future__ import annotations

import time

HEARTBEAT = 15.0
"""Seconds without a message after which a heartbeat is sent."""


class Heartbeat:
    """Measures the time since the last message of one stream.

    News that lead to no message do not count, for example those that a filter excludes: they may never end.
    """

    def __init__(self) -> None:
        self._sent_at = time.monotonic()

    def sent(self) -> None:
        """Notes that a message was sent."""
        self._sent_at = time.monotonic()

    @property
    def rest(self) -> float:
        """Seconds until a heartbeat is due; 0 if it is."""
        return max(0.0, self._sent_at + HEARTBEAT - time.monotonic())
