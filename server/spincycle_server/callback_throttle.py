"""A throttle that spreads a burst of callbacks over many turns of the event loop, so that each turn is short.

A turn runs every callback that is ready. A gRPC message needs several turns in sequence, so it waits long if
a burst fills each of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

BATCH = 64
"""The number of callbacks in one turn. A larger batch costs less per callback, but the turn is longer."""

TURNS = 6
"""Turns of the loop from one batch to the next. Other work runs in the turns between."""

_BURST = 0.001
"""Seconds within which callbacks count as one burst."""


class CallbackThrottle:
    """Runs callbacks in the order in which they arrive: at once, unless many arrive together.

    Callers limit how many callbacks wait.

    Args:
        now: A monotonic clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._burst_began = 0.0
        self._ran = 0
        self._turns_left = 0

    def run(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Runs a callback now or in a later turn. Call this in the loop's thread.

        Args:
            callback: The callback, which must not raise.
            arguments: Its arguments.
        """
        if not self._waiting:
            if self._admit():
                callback(*arguments)
                return
            self._turns_left = TURNS
            asyncio.get_running_loop().call_soon(self._take_turn)
        self._waiting.append((callback, arguments))

    def turn(self) -> asyncio.Future[None] | None:
        """Returns a future that is done when the caller may go on, as a callback of `run`; None: at once."""
        if not self._waiting and self._admit():
            return None
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.run(_settle, turn)
        return turn

    def _admit(self) -> bool:
        """Counts a callback of the current burst. Returns whether it may run at once."""
        now = self._now()
        if now - self._burst_began > _BURST:
            self._burst_began, self._ran = now, 0
        self._ran += 1
        return self._ran <= BATCH

    def _take_turn(self) -> None:
        self._turns_left -= 1
        try:
            if self._turns_left <= 0:
                self._turns_left = TURNS
                for _ in range(min(BATCH, len(self._waiting))):
                    callback, arguments = self._waiting.popleft()
                    callback(*arguments)
        finally:  # A callback that raises must not keep the others waiting forever.
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._take_turn)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
