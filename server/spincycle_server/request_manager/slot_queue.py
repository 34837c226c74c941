"""Creates that wait a moment, since requests come faster than runners are told of them.

A request that finds no place on the way to a runner is PENDING, is read back later, and costs twice as much
as one that goes out at once. Where creates were let go on, they would then go on faster than requests are
given out, and what waits would grow for as long as the load lasts, though the runners have time.
"""

from __future__ import annotations

import asyncio
from collections import deque

PATIENCE = 2.0
"""Seconds after which a create goes on in any case: its request waits as PENDING.

Under twice the load places are waited for half a second, at times a whole one.
"""


class SlotQueue:
    """Callers that wait, let go on one after the other. Calls at a time bound how many there are."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._credit = 0.0

    async def wait(self, patience: float = PATIENCE) -> None:
        """Returns when the caller is let go on, or its patience (seconds) is over."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await asyncio.wait({turn}, timeout=patience)
        finally:
            turn.cancel()  # Who has gone is passed over.

    def let_go_on(self, callers: float) -> None:
        """Lets callers go on; what is left of one counts with the next, and nothing is saved up for later."""
        self._credit += callers
        while self._credit >= 1 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._credit -= 1
        if not self._waiting:
            self._credit = 0.0
