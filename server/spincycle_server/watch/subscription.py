"""The news that wait for one watcher."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from spincycle_grpc.errors import ResourceExhaustedError
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.state_pb2 import State
from spincycle_server.watch.news import News

MAX_NEWS = 100
"""The maximum number of news that wait for one watcher."""


class Subscription:
    """A bounded queue of news.

    Args:
        request_id: The watched request; "" for a filter.
        args: The args by which the filter chooses, by name.

    Attributes:
        state: The state of the watched request that the watcher saw last.
        shown: The running jobs that the watcher saw last, serialized.
    """

    def __init__(self, request_id: str = "", args: Mapping[str, str] | None = None) -> None:
        self.request_id = request_id
        self.args = args or {}
        self.state: State.ValueType = state_pb2.STATE_UNKNOWN
        self.shown = b""
        self._news: deque[News] = deque()
        self._is_too_slow = False
        self._arrived = asyncio.Event()

    @property
    def is_running(self) -> bool:
        """Whether the watched request is RUNNING, so that its running jobs are of interest."""
        return self.state == state_pb2.STATE_RUNNING

    @property
    def is_waiting(self) -> bool:
        """Whether the watched request waits to run, so that the reason is of interest."""
        return self.state in (state_pb2.STATE_PENDING, state_pb2.STATE_SUSPENDED)

    @property
    def has_news(self) -> bool:
        """Whether news wait, or did not fit."""
        return bool(self._news) or self._is_too_slow

    def put(self, news: News) -> None:
        """Adds news. If too many wait, all are dropped, and `next` raises an error."""
        if len(self._news) >= MAX_NEWS:
            if news.position is None:
                return  # The next snapshot replaces it.
            self._is_too_slow = True
            self._news.clear()
        if not self._is_too_slow:
            self._news.append(news)
        self._arrived.set()

    async def next(self, limit: float) -> News | None:
        """Returns the next news; None if none arrive within `limit` seconds.

        Raises:
            ResourceExhaustedError: The watcher was too slow. Reason: WATCHER_TOO_SLOW.
        """
        if not self.has_news:
            self._arrived.clear()
            try:
                async with asyncio.timeout(limit):
                    await self._arrived.wait()
            except TimeoutError:
                if not self._arrived.is_set():  # News may arrive in the moment in which the wait ends.
                    return None
        if self._is_too_slow:
            raise ResourceExhaustedError(
                f"more than {MAX_NEWS} changes wait for this watcher, which reads too slowly: "
                "watch again with the cursor of the last message",
                reason="WATCHER_TOO_SLOW",
            )
        return self._news.popleft()
