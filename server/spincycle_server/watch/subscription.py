"""The news that wait for one watcher."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

from spincycle_grpc.errors import ResourceExhaustedError

MAX_NEWS = 100
"""The maximum number of news that wait for one watcher."""


class AnyNews(Protocol):
    """News of a request or of a filter."""

    @property
    def is_repeated(self) -> bool:
        """Whether a watcher that has no room for this news gets the same again later."""


_News = TypeVar("_News", bound=AnyNews)


class Subscription(Generic[_News]):
    """A bounded queue of news.

    Args:
        request_id: The watched request; "" for a filter.
        args: The args by which the filter chooses, by name.

    Attributes:
        sent_state: The watched request that the watcher got last, serialized.
        shown: The running jobs that the watcher got last, serialized.
    """

    def __init__(self, request_id: str = "", args: Mapping[str, str] | None = None) -> None:
        self.request_id = request_id
        self.args = args or {}
        self.sent_state = b""
        self.shown = b""
        self._news: deque[_News] = deque()
        self._is_too_slow = False
        self._waiting: asyncio.Future[None] | None = None
        self._ends_at = 0.0  # when the wait ends
        self._timer: asyncio.TimerHandle | None = None

    @property
    def unread(self) -> int:
        """The number of news that wait."""
        return len(self._news)

    def put(self, news: _News) -> bool:
        """Adds news. If too many wait, all are dropped, and `next` raises an error.

        Returns:
            Whether there was room for the news.
        """
        if len(self._news) >= MAX_NEWS:
            if news.is_repeated:
                return False
            self._is_too_slow = True
            self._news.clear()
        if not self._is_too_slow:
            self._news.append(news)
        self._wake()
        return not self._is_too_slow

    async def next(self, limit: float) -> _News | None:
        """Returns the next news; None if none arrive within `limit` seconds.

        Raises:
            ResourceExhaustedError: The watcher was too slow. Reason: WATCHER_TOO_SLOW.
        """
        if not (self._news or self._is_too_slow):
            await self._wait(limit)
        if self._is_too_slow:
            raise ResourceExhaustedError(
                f"more than {MAX_NEWS} changes wait for this watcher, which reads too slowly: "
                "watch again with the cursor of the last message",
                reason="WATCHER_TOO_SLOW",
            )
        return self._news.popleft() if self._news else None  # They may arrive as the wait ends.

    def close(self) -> None:
        """Ends the timer of the queue."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _wait(self, limit: float) -> None:
        loop = asyncio.get_running_loop()
        self._ends_at = loop.time() + limit
        if self._timer is not None and self._timer.when() > self._ends_at:
            self.close()
        if self._timer is None:
            self._timer = loop.call_at(self._ends_at, self._check_time)
        self._waiting = loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _check_time(self) -> None:
        """Ends the wait if its time is over. A timer may be older than the wait, because news cancel none."""
        self._timer = None
        loop = asyncio.get_running_loop()
        if self._waiting is not None and loop.time() < self._ends_at:
            self._timer = loop.call_at(self._ends_at, self._check_time)
        else:
            self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
