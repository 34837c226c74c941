"""The hub: reads the changes for all watchers of this Request Manager in rounds."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.v1.request_manager_pb2 import RunningJobs
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.store.changes import Changes, Try
from spincycle_server.store.positions import Position
from spincycle_server.watch.news import News
from spincycle_server.watch.pace import Pace
from spincycle_server.watch.request_news import RequestNews
from spincycle_server.watch.subscription import Subscription
from spincycle_server.watch.watched_request import WatchedRequest

if TYPE_CHECKING:
    from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

AskRunning: TypeAlias = Callable[[Sequence[WatchedRequest]], Awaitable[Mapping[str, RunningJobs]]]

ROUND_INTERVAL = 0.5
"""Seconds between rounds while somebody watches. So changes by other Request Managers arrive in time."""

LONGEST_PAUSE = 0.1
"""Seconds between rounds if this Request Manager changes requests that match watched filters all the time.

If it changes requests that are watched by themselves, rounds may follow each other sooner, see `pace`.
"""

MAX_UNREAD = 10
"""News that a watcher leaves unread before rounds come only once each LONGEST_PAUSE.

Otherwise a watcher that reads nothing for two seconds could have too many.
"""

MANY_WATCHERS = 100
"""The number of watchers of single requests from which on changes are held.

A job's end, the start of the next one and its running are several commits. With many watchers, one message
about all of them costs less. A few watchers get changes at once.
"""

MANY_PAUSE = 0.25
"""Seconds between rounds with many watchers."""

HOLD_LIMIT = 0.4
"""Seconds for which changes are held with many watchers, unless a round finds no further ones."""

SNAPSHOT_INTERVAL = 1.0
"""Seconds between snapshots of the running jobs of a request, and of the reason why it waits."""

SNAPSHOT_LIMIT = 0.1
"""Seconds for which held changes wait for the running jobs."""

_RETRY_PAUSE = 1.0
"""Seconds after a round that failed."""


async def _ask_nobody(_: Sequence[WatchedRequest]) -> Mapping[str, RunningJobs]:
    return {}


class Hub:
    """Reads changes in rounds and gives them to watchers. Nothing is read while nobody watches.

    Args:
        store: The database.
        ask_running: Returns the running jobs of requests, by request.
    """

    def __init__(self, store: Store, ask_running: AskRunning = _ask_nobody) -> None:
        self._store = store
        self._ask_running = ask_running
        self._requests: dict[str, WatchedRequest] = {}
        self._holding: dict[str, WatchedRequest] = {}  # those that may hold changes
        self._of_requests = 0  # the number of watchers of single requests
        self._of_filters: set[Subscription[News]] = set()
        self._position: Position | None = None
        self._joining: list[asyncio.Future[Position]] = []
        self._round = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._wanted_now = asyncio.Event()  # set only together with `_wanted`
        self._rested_at = -math.inf  # when the last round is LONGEST_PAUSE ago
        self._is_failing = False
        self._pace = Pace()

    @property
    def _is_watched(self) -> bool:
        return bool(self._requests or self._of_filters)

    @property
    def _holds_changes(self) -> bool:
        """Whether there are so many watchers that changes are held."""
        return self._of_requests >= MANY_WATCHERS

    async def position(self) -> Position:
        """Returns a position that is read after this call.

        Raises:
            UnavailableError: The database cannot be used now.
        """
        joining: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self._joining.append(joining)
        self._want_now()
        return await joining

    async def subscribe(self, subscription: Subscription[RequestNews]) -> Position:
        """Adds a watcher of a request. Returns the position after which it gets all news.

        `position` must have been called before.
        """
        async with self._round:  # A round that has begun may not read this watcher's request.
            assert self._position is not None  # noqa: S101 (as the contract says)
            request_id = subscription.request_id
            watched = self._requests.get(request_id)
            if watched is None:
                watched = self._requests[request_id] = WatchedRequest(request_id)
            watched.release(self._position)  # The new watcher reads these changes itself.
            watched.watchers.add(subscription)
            self._of_requests += 1
            self._want_now()
            return self._position

    async def subscribe_to_filter(self, subscription: Subscription[News]) -> Position:
        """Adds a watcher of a filter. As `subscribe`."""
        async with self._round:
            assert self._position is not None  # noqa: S101 (as the contract says)
            self._of_filters.add(subscription)
            self._want_now()
            return self._position

    def unsubscribe(self, subscription: Subscription[RequestNews]) -> None:
        """Removes a watcher of a request, if it is there."""
        subscription.close()
        watched = self._requests.get(subscription.request_id)
        if watched is not None and subscription in watched.watchers:
            watched.watchers.remove(subscription)
            self._of_requests -= 1
            if not watched.watchers:
                del self._requests[watched.request_id]
                self._holding.pop(watched.request_id, None)

    def unsubscribe_from_filter(self, subscription: Subscription[News]) -> None:
        """Removes a watcher of a filter, if it is there."""
        subscription.close()
        self._of_filters.discard(subscription)

    def changed(self, request_ids: Iterable[str]) -> None:
        """Tells that this Request Manager has changed requests. If one is watched, a round comes soon.

        Somebody who watches a single request waits for it. Those who watch a filter see many, so a few
        rounds for all of these are enough.
        """
        if self._requests and any(request_id in self._requests for request_id in request_ids):
            self._want_now()
        elif self._of_filters:
            self._wanted.set()

    def _want_now(self) -> None:
        self._wanted.set()
        self._wanted_now.set()

    def saw(self, request: Request) -> None:
        """Notes a request that a watcher has read."""
        watched = self._requests.get(request.id)
        if watched is not None:
            watched.saw(request)

    def running_requests(self) -> list[WatchedRequest]:
        """Returns the watched requests whose running jobs can be shown now."""
        before = time.monotonic() - SNAPSHOT_INTERVAL
        return [one for one in self._requests.values() if one.is_running and one.joined_at <= before]

    def show_running(self, running: RunningJobs) -> None:
        """Gives the running jobs of a request to its watchers, unless they have seen the same before."""
        watched = self._requests.get(running.request_id)
        if watched is None or self._position is None or not watched.needs(running):
            return
        now = time.monotonic()
        if now - watched.joined_at < SNAPSHOT_INTERVAL:  # A newer snapshot came with changes meanwhile.
            return
        watched.add_running(running, now)
        if self._holds_changes:  # The job before has ended now, or soon.
            self._holding[watched.request_id] = watched
            self._want_now()
        elif watched.release(self._position):
            watched.shown_at = now

    def waiting_requests(self) -> list[str]:
        """Returns the watched requests that wait to run."""
        return [request_id for request_id, watched in self._requests.items() if watched.is_waiting]

    async def look(self, request_ids: Collection[str]) -> None:
        """Looks at watched requests for changes without a stamp, and gives them to the watchers.

        A request may wait for another reason, may be deleted, or may have been changed by an original.
        """
        async with self._round:  # So what is read is newer than all news until now.
            found = await self._store.stamped_requests(request_ids)
        self.gone(set(request_ids) - found.keys())
        for request_id, (request, stamp) in found.items():
            watched = self._requests.get(request_id)
            if watched is None or self._position is None or not self._position.has(stamp):
                continue  # If it is watched, a round brings it.
            if watched.is_waiting or watched.state != request.state:
                watched.show(request, self._position)

    def gone(self, request_ids: Iterable[str]) -> None:
        """Tells the watchers of requests that these do not exist any more."""
        for request_id in request_ids:
            watched = self._requests.get(request_id)
            if watched is not None and self._position is not None:
                watched.tell(RequestNews(request_id, self._position, is_gone=True))

    @property
    def watched(self) -> list[str]:
        """The ids of requests that are watched by themselves."""
        return list(self._requests)

    def now(self) -> Position | None:
        """Returns the position up to which watchers of filters have all news."""
        return self._position

    def now_of(self, request_id: str) -> Position | None:
        """Returns the position up to which the watchers of a request have all news; None if some are held."""
        watched = self._requests.get(request_id)
        return None if watched is None or watched.holds_changes else self._position

    async def run(self) -> None:
        """Makes rounds until it is cancelled."""
        while True:
            await self._wait_wanted()
            self._wanted.clear()
            self._wanted_now.clear()
            began = time.monotonic()
            self._rested_at = began + LONGEST_PAUSE
            async with self._round:
                is_done = await self._make_round()
            await self._release_held()
            await asyncio.sleep(self._pause(began, is_done=is_done))

    def _pause(self, began: float, *, is_done: bool) -> float:
        """Returns the seconds until the next round may begin."""
        now = time.monotonic()
        paced = self._pace.pause(began, now)
        if not is_done:
            return max(0.0, began + _RETRY_PAUSE - now)
        if self._holds_changes:
            return max(0.0, began + MANY_PAUSE - now)
        longest = max(0.0, began + LONGEST_PAUSE - now)
        return longest if self._is_ahead_of_watchers() else min(paced, longest)

    def _is_ahead_of_watchers(self) -> bool:
        """Whether a watcher has not read the news of many rounds."""
        groups: list[Iterable[Subscription[Any]]] = [one.watchers for one in self._requests.values()]
        return any(
            watcher.unread > MAX_UNREAD for watcher in chain(self._of_filters, chain.from_iterable(groups))
        )

    async def _wait_wanted(self) -> None:
        """Waits until a round is wanted, or, if somebody watches, is due."""
        if self._holding:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ROUND_INTERVAL if self._is_watched else None):
                await self._wanted.wait()
            async with asyncio.timeout(self._rested_at - time.monotonic()):
                await self._wanted_now.wait()

    async def _make_round(self) -> bool:
        """Reads the changes since the last round and hands them out. Returns whether that was possible."""
        joining, self._joining = self._joining, []
        earlier = self._position if self._is_watched else None
        ids = None if self._of_filters else frozenset(self._requests)
        arg_names = {name for watcher in self._of_filters for name in watcher.args}
        try:
            changes = await self._store.read_changes(earlier, ids, arg_names)
        except Exception as error:
            self._fail(error, joining)
            return False
        self._is_failing = False
        if not changes.is_complete:
            self._let_read(changes.position)
        self._position = changes.position
        if changes.is_complete:
            self._add(changes)
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

    def _add(self, changes: Changes) -> None:
        """Adds the changes of a round to those of the requests, and gives them to filters."""
        tries: dict[str, list[Try]] = {}
        for one in changes.tries:
            tries.setdefault(one.key.request_id, []).append(one)
        touched = changes.requests.keys() | tries.keys()
        now = time.monotonic()
        for request_id in touched & self._requests.keys() if self._requests else ():
            watched = self._requests[request_id]
            watched.add(changes.requests.get(request_id), tries.get(request_id, ()), now)
            self._holding[request_id] = watched
        self.gone(one.request_id for one in changes.deleted)
        if touched or changes.deleted:
            self._tell_filters(
                News(
                    changes.position, changes.requests, changes.tries, changes.others, changes.args,
                    changes.deleted,
                )
            )  # fmt: skip

    def _let_read(self, position: Position) -> None:
        """Tells the watchers to read the changes up to a position themselves."""
        for watched in self._requests.values():
            if watched.holds_changes and self._position is not None:
                watched.release(self._position)
            watched.tell(RequestNews(watched.request_id, position, is_complete=False))
        self._tell_filters(News(position, is_complete=False))

    def _tell_filters(self, news: News) -> None:
        for watcher in self._of_filters:
            watcher.put(news)

    async def _release_held(self) -> None:
        """Gives held changes to the watchers: all at once, or with many watchers those that are due."""
        now = time.monotonic()
        limit = HOLD_LIMIT if self._holds_changes else 0.0
        due = [watched for watched in self._holding.values() if watched.end_round(now, limit)]
        running = await self._running_of(due, now) if self._holds_changes else {}
        for watched in due:
            assert self._position is not None  # noqa: S101 (a round has found changes)
            if watched.release(self._position, running.get(watched.request_id)):
                watched.shown_at = watched.joined_at = now
        self._holding = {request_id: one for request_id, one in self._holding.items() if one.holds_changes}

    async def _running_of(self, due: Sequence[WatchedRequest], now: float) -> Mapping[str, RunningJobs]:
        """Returns the running jobs of requests whose changes are due, of those that can be shown."""
        asked = [one for one in due if one.is_running and now - one.shown_at >= SNAPSHOT_INTERVAL]
        if not asked:
            return {}
        try:
            async with asyncio.timeout(SNAPSHOT_LIMIT):
                return await self._ask_running(asked)
        except TimeoutError:
            pass
        except Exception:  # The changes are sent without the running jobs, which come a second later.
            logger.exception("asking for running jobs raised an unexpected exception")
        return {}
