"""Work that comes in crowds, done some at a time, so that one turn of the event loop stays short.

A turn runs all that has become ready, however much that is. What needs several turns, one after the other,
as each message by gRPC does, waits long where a crowd fills each of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

MANY = 64
"""Callbacks that are run together: the more, the better is shared what a crowd costs."""

TURNS = 6
"""Turns of the loop from these to the next: what is not paced gets through in the turns between."""

_CROWD = 0.001
"""Seconds within which callbacks count as a crowd."""


class CallbackThrottle:
    """Runs callbacks in the order in which they came: at once if they are few.

    Its users bound how many wait.

    Args:
        now: Seconds of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._since = 0.0
        self._ran = 0
        self._turns = 0

    def run(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Runs a callback, now or soon; it must not raise. To be called in the thread of the loop."""
        if not self._waiting:
            if self._has_room():
                callback(*arguments)
                return
            self._turns = TURNS
            asyncio.get_running_loop().call_soon(self._turn)
        self._waiting.append((callback, arguments))

    async def wait_turn(self) -> None:
        """Returns when it is the caller's turn: at once if callers are few."""
        if not self._waiting and self._has_room():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.run(_settle, turn)
        await turn

    def _has_room(self) -> bool:
        now = self._now()
        if now - self._since > _CROWD:
            self._since, self._ran = now, 0
        self._ran += 1
        return self._ran <= MANY

    def _turn(self) -> None:
        self._turns -= 1
        try:
            if self._turns <= 0:
                self._turns = TURNS
                for _ in range(min(MANY, len(self._waiting))):
                    callback, arguments = self._waiting.popleft()
                    callback(*arguments)
        finally:  # One that raises, which it must not, is to keep nobody waiting for ever.
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._turn)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
