"""The PENDING requests: how many there are, and the loop that dispatches them when runners have room."""

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
"""The maximum number of PENDING requests that are dispatched together."""

_COUNT_AGE = 1.0
"""Seconds between two counts of the PENDING requests if they fill at least one page."""


class PendingRequests:
    """The PENDING requests, oldest first.

    Args:
        store: Stores the requests.
        dispatch: Takes ids of requests, oldest first. Returns how many of them got a runner.
        limit: How many requests may be PENDING. Beyond that, Create calls are refused.
        interval: The maximum time in seconds between two reads of the store.
    """

    def __init__(
        self,
        store: Store,
        dispatch: Callable[[Sequence[str]], Awaitable[int]],
        *,
        limit: int,
        interval: float,
    ) -> None:
        self._store = store
        self._dispatch = dispatch
        self._limit = limit
        self._interval = interval
        self._count = 0
        self._counted_at = 0.0
        self._wake = asyncio.Event()

    @property
    def any(self) -> bool:
        """Whether requests are PENDING. New requests must not overtake them."""
        return self._count > 0

    def check_limit(self) -> None:
        """Checks that one more request may be PENDING.

        Raises:
            ResourceExhaustedError: The limit is reached. Reason: TOO_MANY_WAITING.
        """
        if self._count >= self._limit:
            raise ResourceExhaustedError(
                f"the limit of {self._limit} requests that wait for a job runner is reached: try again later",
                reason="TOO_MANY_WAITING",
            )

    def add(self) -> None:
        """Counts one more request. The first one wakes the loop."""
        if not self._count:
            self._wake.set()
        self._count += 1

    def wake(self) -> None:
        """Makes the loop dispatch requests now, because a runner may have room."""
        self._wake.set()

    async def run(self) -> None:
        """Dispatches PENDING requests until cancelled."""
        while True:
            self._wake.clear()
            try:
                may_dispatch_more = await self._dispatch_page()
            except SpinCycleError as error:
                logger.warning("pending requests not dispatched", error=str(error), reason=error.reason)
                may_dispatch_more = False
            if not may_dispatch_more:
                pause = min(PROBE, self._interval) if self._count else self._interval
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)

    async def _dispatch_page(self) -> bool:
        """Dispatches up to a page of requests. Returns whether runners may take more."""
        pending = await self._store.waiting_requests(PAGE)
        if len(pending) < PAGE:
            self._count = len(pending)
        elif time.monotonic() - self._counted_at > _COUNT_AGE:
            self._count = await self._store.count_waiting(self._limit)
            self._counted_at = time.monotonic()
        dispatched = await self._dispatch(pending) if pending else 0
        self._count = max(0, self._count - dispatched)
        return dispatched > 0
