"""The hub: reads the changes for all watchers of this Request Manager in rounds."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.v1.request_manager_pb2 import RunningJobs
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.store.changes import Changes, DeletedRequest, Try
from spincycle_server.store.positions import Position
from spincycle_server.watch.news import News
from spincycle_server.watch.subscription import Subscription

if TYPE_CHECKING:
    from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

ROUND_INTERVAL = 0.5
"""Seconds between rounds while somebody watches. So changes by other Request Managers arrive in time."""

MIN_PAUSE = 0.1
"""Seconds between rounds if this Request Manager changes watched requests all the time."""

GATHER_TIME = 0.000_1
"""Seconds for which a round waits for further changes, for each watcher, and at most `MIN_PAUSE`.

A job's end and the start of the next one are two commits. With many watchers, one message about both costs
less. A few watchers get changes at once.
"""

_RETRY_PAUSE = 1.0
"""Seconds after a round that failed."""


class Hub:
    """Reads changes in rounds and gives them to watchers. Nothing is read while nobody watches.

    Args:
        store: The database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_request: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._of_filters: set[Subscription] = set()
        self._position: Position | None = None
        self._joining: list[asyncio.Future[Position]] = []
        self._round = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._is_failing = False

    @property
    def _is_watched(self) -> bool:
        return bool(self._by_request or self._of_filters)

    @property
    def _watchers(self) -> int:
        """The number of watchers."""
        return len(self._of_filters) + sum(len(some) for some in self._by_request.values())

    async def position(self) -> Position:
        """Returns a position that is read after this call.

        Raises:
            UnavailableError: The database cannot be used now.
        """
        joining: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self._joining.append(joining)
        self._wanted.set()
        return await joining

    async def subscribe(self, subscription: Subscription) -> Position:
        """Adds a watcher. Returns the position after which it gets all news.

        `position` must have been called before.
        """
        async with self._round:  # A round that has begun may not read this watcher's request.
            if subscription.request_id:
                self._by_request[subscription.request_id].add(subscription)
            else:
                self._of_filters.add(subscription)
            self._wanted.set()
            assert self._position is not None  # noqa: S101 (as the contract says)
            return self._position

    def unsubscribe(self, subscription: Subscription) -> None:
        """Removes a watcher, if it is there."""
        self._of_filters.discard(subscription)
        watchers = self._by_request.get(subscription.request_id)
        if watchers is not None:
            watchers.discard(subscription)
            if not watchers:
                del self._by_request[subscription.request_id]

    def changed(self, request_ids: Iterable[str]) -> None:
        """Tells that this Request Manager has changed requests. If one is watched, a round comes soon."""
        if self._of_filters or (
            self._by_request and any(request_id in self._by_request for request_id in request_ids)
        ):
            self._wanted.set()

    def running_requests(self) -> list[str]:
        """Returns the watched requests that are RUNNING."""
        return [
            request_id
            for request_id, watchers in self._by_request.items()
            if any(watcher.is_running for watcher in watchers)
        ]

    def show_running(self, running: RunningJobs) -> None:
        """Gives the running jobs of a request to its watchers, unless they have seen the same before."""
        data = running.SerializeToString(deterministic=True)
        for watcher in self._by_request.get(running.request_id, ()):
            if watcher.is_running and watcher.shown != data:
                watcher.shown = data
                watcher.put(News(None, running=running))

    def waiting_requests(self) -> list[str]:
        """Returns the watched requests that wait to run."""
        return [
            request_id
            for request_id, watchers in self._by_request.items()
            if any(watcher.is_waiting for watcher in watchers)
        ]

    async def look(self, request_ids: Collection[str]) -> None:
        """Looks at watched requests for changes without a stamp, and gives them to the watchers.

        A request may wait for another reason, may be deleted, or may have been changed by an original.
        """
        async with self._round:  # So what is read is newer than all news until now.
            found = await self._store.stamped_requests(request_ids)
        self.gone(set(request_ids) - found.keys())
        for request_id, (request, stamp) in found.items():
            if self._position is not None and self._position.has(stamp):  # Otherwise a round brings it.
                self._show(request_id, request)

    def _show(self, request_id: str, request: Request) -> None:
        for watcher in self._by_request.get(request_id, ()):
            if watcher.is_waiting or watcher.state != request.state:
                watcher.put(News(None, {request_id: request}))

    def gone(self, request_ids: Iterable[str]) -> None:
        """Tells the watchers of requests that these do not exist any more."""
        for request_id in request_ids:
            for watcher in self._by_request.get(request_id, ()):
                watcher.put(News(self._position, deleted=[DeletedRequest(request_id, "", "")]))

    @property
    def watched(self) -> list[str]:
        """The ids of requests that are watched by themselves."""
        return list(self._by_request)

    def now(self) -> Position | None:
        """Returns the position up to which subscribed watchers have all news."""
        return self._position

    async def run(self) -> None:
        """Makes rounds until it is cancelled."""
        while True:
            await self._wait_wanted()
            await asyncio.sleep(min(MIN_PAUSE, GATHER_TIME * self._watchers))
            self._wanted.clear()
            began = time.monotonic()
            async with self._round:
                is_done = await self._make_round()
            pause = MIN_PAUSE if is_done else _RETRY_PAUSE
            await asyncio.sleep(max(0.0, began + pause - time.monotonic()))

    async def _wait_wanted(self) -> None:
        """Waits until a round is wanted, or, if somebody watches, is due."""
        try:
            async with asyncio.timeout(ROUND_INTERVAL if self._is_watched else None):
                await self._wanted.wait()
        except TimeoutError:
            pass

    async def _make_round(self) -> bool:
        """Reads the changes since the last round and hands them out. Returns whether that was possible."""
        joining, self._joining = self._joining, []
        earlier = self._position if self._is_watched else None
        ids = None if self._of_filters else frozenset(self._by_request)
        arg_names = {name for watcher in self._of_filters for name in watcher.args}
        try:
            changes = await self._store.read_changes(earlier, ids, arg_names)
        except Exception as error:
            self._fail(error, joining)
            return False
        self._is_failing = False
        self._position = changes.position
        for news, watchers in self._news(changes):
            for watcher in watchers:
                watcher.put(news)
        for waiter in joining:
            if not waiter.done():
                waiter.set_result(changes.position)
        return True

    def _fail(self, error: Exception, joining: Sequence[asyncio.Future[Position]]) -> None:
        if not self._is_failing:
            logger.warning("reading changes failed, trying again", watched=self._is_watched, error=str(error))
        if not isinstance(error, SpinCycleError):
            logger.error("reading changes raised an unexpected exception", exc_info=error)
        self._is_failing = True
        for waiter in joining:
            if not waiter.done():
                waiter.set_exception(error)

    def _news(self, changes: Changes) -> Iterator[tuple[News, Collection[Subscription]]]:
        """Yields news with those who get them."""
        if not changes.is_complete:
            watchers = {watcher for some in self._by_request.values() for watcher in some}
            yield News(changes.position, is_complete=False), watchers | self._of_filters
            return
        tries: dict[str, list[Try]] = {}
        for one in changes.tries:
            tries.setdefault(one.key.request_id, []).append(one)
        deleted = {one.request_id: one for one in changes.deleted}
        touched = changes.requests.keys() | tries.keys() | deleted.keys()
        for request_id in touched & self._by_request.keys() if self._by_request else ():
            request = changes.requests.get(request_id)
            yield (
                News(
                    changes.position,
                    {} if request is None else {request_id: request},
                    tries.get(request_id, ()),
                    deleted=[deleted[request_id]] if request_id in deleted else (),
                ),
                self._by_request[request_id],
            )
        if touched and self._of_filters:
            yield (
                News(
                    changes.position, changes.requests, changes.tries, changes.others, changes.args,
                    changes.deleted,
                ),
                self._of_filters,
            )  # fmt: skip
