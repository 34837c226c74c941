"""The queue in which Create calls wait for a delivery slot.

A request that finds no slot becomes PENDING. It is read back later and costs twice as much as a request that
is delivered at once. Without the queue, Create calls would outrun deliveries under load, and the number of
PENDING requests would grow until the load ends, although the runners have room.
"""

from __future__ import annotations

import asyncio
from collections import deque

PATIENCE = 2.0
"""The maximum time in seconds that a Create call waits. Then its request becomes PENDING.

At twice the load that the server sustains, a call waits half a second for a slot, and at times a second.
"""


class SlotQueue:
    """Callers that wait for a slot, first come, first served. The limit of concurrent calls bounds them."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._credit = 0.0

    async def wait(self, patience: float = PATIENCE) -> None:
        """Returns when the caller is released, or after `patience` seconds."""
        released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(released)
        try:
            await asyncio.wait({released}, timeout=patience)
        finally:
            released.cancel()  # `release` skips a caller that has gone.

    def release(self, callers: float) -> None:
        """Releases the first callers.

        Args:
            callers: How many callers. A fraction is kept for the next release, unless nobody waits.
        """
        self._credit += callers
        while self._credit >= 1 and self._waiting:
            released = self._waiting.popleft()
            if not released.done():
                released.set_result(None)
                self._credit -= 1
        if not self._waiting:
            self._credit = 0.0
