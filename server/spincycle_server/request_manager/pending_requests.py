"""PENDING requests: how many wait for a runner, and that they are given out as fast as runners take them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import ResourceExhaustedError, SpinCycleError
from spincycle_server.request_manager.full_runners import PROBE

if TYPE_CHECKING:
    from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

PAGE = 200
"""Waiting requests that are given out together."""

_COUNTED = 1.0
"""Seconds for which a count of many requests is good."""


class PendingRequests:
    """The requests that wait, oldest first.

    Args:
        store: Knows them.
        give_out: Is given ids, the oldest first, and returns how many of them runners were found for.
        limit: As many may wait before no more are made.
        interval: Seconds after which it is looked for them in any case.
    """

    def __init__(
        self,
        store: Store,
        give_out: Callable[[Sequence[str]], Awaitable[int]],
        *,
        limit: int,
        interval: float,
    ) -> None:
        self._store = store
        self._give_out = give_out
        self._limit = limit
        self._interval = interval
        self._count = 0
        self._counted_at = 0.0
        self._wake = asyncio.Event()

    @property
    def any(self) -> bool:
        """Whether requests wait, behind which new ones have to wait too."""
        return self._count > 0

    def check(self) -> None:
        """Does nothing while one more request may wait.

        Raises:
            ResourceExhaustedError: As many wait as may.
        """
        if self._count >= self._limit:
            raise ResourceExhaustedError(
                f"{self._limit} requests wait for a job runner, the limit: try again later",
                reason="TOO_MANY_WAITING",
            )

    def added(self) -> None:
        """Tells that one more waits."""
        if not self._count:
            self._wake.set()
        self._count += 1

    def wake(self) -> None:
        """Has it looked now whether a runner takes some."""
        self._wake.set()

    async def run(self) -> None:
        """Gives out what waits, for ever. Ends when cancelled."""
        while True:
            self._wake.clear()
            try:
                goes_on = await self._look()
            except SpinCycleError as error:
                logger.warning("waiting requests not given out", error=str(error), reason=error.reason)
                goes_on = False
            if not goes_on:
                pause = min(PROBE, self._interval) if self._count else self._interval
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)

    async def _look(self) -> bool:
        """Gives out some, and returns whether there may be more that runners take."""
        waiting = await self._store.waiting_requests(PAGE)
        if len(waiting) < PAGE:
            self._count = len(waiting)
        elif time.monotonic() - self._counted_at > _COUNTED:
            self._count = await self._store.count_waiting(self._limit)
            self._counted_at = time.monotonic()
        given = await self._give_out(waiting) if waiting else 0
        self._count = max(0, self._count - given)
        return given > 0
