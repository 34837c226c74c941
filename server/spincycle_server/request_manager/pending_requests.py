"""The PENDING requests: how many there are, and the loop that dispatches them when runners have room."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import ResourceExhaustedError, SpinCycleError
from spincycle_grpc.state import State
from spincycle_server.capabilities import NEEDS_NOTHING, WAITS_FOR_LIMIT, Requirement
from spincycle_server.request_manager.full_runners import PROBE
from spincycle_server.request_manager.startable_requests import find_startable
from spincycle_server.telemetry.limits import BLOCKED_REQUESTS, WAITING_REQUESTS, LimitUse

if TYPE_CHECKING:
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store
    from spincycle_server.store.requirements import WaitingRequest

logger = structlog.get_logger(__name__)

PAGE = 200
"""The maximum number of PENDING requests that are dispatched together."""

_COUNT_AGE = 1.0
"""Seconds between two counts of the PENDING requests if they fill at least one page."""


class PendingRequests:
    """The PENDING requests, oldest first.

    Those that no runner can run at present are blocked: they have a limit of their own, and delay no other.

    Args:
        store: Stores the requests.
        runners: The runners that may run them.
        dispatch: Takes requests, oldest first, or none. Returns those that got a runner.
        limit: How many requests may be PENDING that are not blocked. Beyond that, Create calls are refused.
        blocked_limit: How many requests may be blocked.
        interval: The maximum time in seconds between two reads of the store.
        others: Returns how many requests that are not PENDING wait for places of a runner.
    """

    def __init__(
        self,
        store: Store,
        runners: Runners,
        dispatch: Callable[[Sequence[WaitingRequest]], Awaitable[Sequence[WaitingRequest]]],
        *,
        limit: int,
        blocked_limit: int,
        interval: float,
        others: Callable[[str], int] = lambda _: 0,
    ) -> None:
        self._store = store
        self._runners = runners
        self._dispatch = dispatch
        self._others = others
        self._limit = limit
        self._blocked_limit = blocked_limit
        self._interval = interval
        self._counts: dict[Requirement, int] = {}  # None is 0.
        self._counted: frozenset[str] = frozenset()
        self._added: list[tuple[Requirement, str]] | None = None  # while the store is read
        self._counted_at = 0.0
        self._oldest_at = 0
        self._wake = asyncio.Event()

    @property
    def any(self) -> bool:
        """Whether requests are PENDING that are not blocked."""
        return bool(self._counts) and any(self._unblocked())

    @property
    def oldest_waiting(self) -> float:
        """The age in seconds of the oldest request that is not blocked, by the last read; 0 without one."""
        return max(0.0, time.time() - self._oldest_at / 1e6) if self._oldest_at else 0.0

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limits of waiting and of blocked requests, and how many there are."""
        waiting = sum(self._counts[one] for one in self._unblocked())
        blocked = sum(self._counts.values()) - waiting
        return (
            LimitUse(WAITING_REQUESTS, self._limit, waiting),
            LimitUse(BLOCKED_REQUESTS, self._blocked_limit, blocked),
        )

    def compete_with(self, requirement: Requirement) -> bool:
        """Whether requests are PENDING for the runners of a new request, which must not overtake them."""
        if not self._counts:
            return False
        able = frozenset(self._runners.able(requirement))
        return any(not able.isdisjoint(self._runners.able(one)) for one in self._unblocked())

    def check_limit(self) -> None:
        """Checks that one more request may be PENDING.

        Raises:
            ResourceExhaustedError: The limit is reached. Reason: TOO_MANY_WAITING.
        """
        if self._counts and sum(self._counts[one] for one in self._unblocked()) >= self._limit:
            raise ResourceExhaustedError(
                f"the limit of {self._limit} requests that wait for a job runner is reached: try again later",
                reason="TOO_MANY_WAITING",
            )

    def check_blocked_limit(self, requirement: Requirement) -> None:
        """Checks that a request may be created, if it would be blocked.

        Raises:
            ResourceExhaustedError: The limit is reached. Reason: TOO_MANY_BLOCKED.
        """
        if self._runners.is_blocked(requirement) and not self.may_block:
            why = self._runners.why_waiting(State.PENDING, requirement, "")
            raise ResourceExhaustedError(
                f"{why}, and the limit of {self._blocked_limit} requests that wait for such a job runner is "
                "reached: start one, or stop requests",
                reason="TOO_MANY_BLOCKED",
            )

    @property
    def may_block(self) -> bool:
        """Whether one more request may be blocked."""
        blocked = sum(count for one, count in self._counts.items() if self._runners.is_blocked(one))
        return blocked < self._blocked_limit

    @property
    def any_waits_for_limit(self) -> bool:
        """Whether requests wait for limits. They count as blocked."""
        return WAITS_FOR_LIMIT in self._counts

    def add(self, requirement: Requirement = NEEDS_NOTHING, request_id: str = "") -> None:
        """Counts one more request. The first one that is not blocked wakes the loop.

        Args:
            requirement: What it needs.
            request_id: Its id, if it is new. The loop may have counted it already, after it was committed.
        """
        if request_id in self._counted:
            return
        if not self.any and not self._runners.is_blocked(requirement):
            self._wake.set()
        self._counts[requirement] = self._counts.get(requirement, 0) + 1
        if self._added is not None:
            self._added.append((requirement, request_id))

    def waiting_for(self, runner_id: str) -> int:
        """Returns how many requests are PENDING that a runner can run, by the last look."""
        return sum(self._counts[one] for one in self._unblocked() if runner_id in self._runners.able(one))

    def demand_for(self, runner_id: str) -> int:
        """Returns how many requests wait for places of a runner, PENDING or not, by the last looks."""
        return self.waiting_for(runner_id) + self._others(runner_id)

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
            except Exception as error:  # The next look may succeed. Without looks, no request starts.
                logger.error("a look for pending requests raised an unexpected exception", exc_info=error)
                may_dispatch_more = False
            if not may_dispatch_more:
                self._runners.want_places(self.demand_for)
                pause = min(PROBE, self._interval) if self.any else self._interval
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()

    async def _dispatch_page(self) -> bool:
        """Dispatches up to a page of requests. Returns whether runners may take more."""
        added = self._added = []
        try:
            found = await find_startable(self._store, self._runners, State.PENDING, PAGE)
        finally:
            self._added = None
        if found.page.is_last:
            self._use_counts(found.page.requests, added)
        elif time.monotonic() - self._counted_at > _COUNT_AGE:
            await self._count()
        dispatched = await self._dispatch(found.requests)
        for one in dispatched:
            left = self._counts.pop(one.requirement, 0) - 1
            if left > 0:
                self._counts[one.requirement] = left
        gone = {one.request_id for one in dispatched}
        waiting = (one for one in found.page.requests if one.request_id not in gone)
        self._oldest_at = next((one.created_at for one in waiting if self._is_unblocked(one)), 0)
        return bool(dispatched)

    def _use_counts(
        self, waiting: Sequence[WaitingRequest], added: Sequence[tuple[Requirement, str]]
    ) -> None:
        """Counts all PENDING requests, as they were read.

        Those that were added meanwhile are counted again, because the read may have missed them. Otherwise
        nobody would look for them until the next read, which may be seconds later.
        """
        self._counts = dict(Counter(one.requirement for one in waiting))
        self._counted = frozenset(one.request_id for one in waiting)
        for requirement, request_id in added:
            self.add(requirement, request_id)

    def _is_unblocked(self, waiting: WaitingRequest) -> bool:
        return not self._runners.is_blocked(waiting.requirement)

    async def _count(self) -> None:
        limit = self._limit + self._blocked_limit
        counts = await self._store.requirements.count_waiting(State.PENDING, limit)
        requirements = await self._store.requirements.get([one for one in counts if one])
        self._counts = {requirements.get(one, NEEDS_NOTHING): count for one, count in counts.items()}
        self._counted_at = time.monotonic()

    def _unblocked(self) -> Iterator[Requirement]:
        return (one for one in self._counts if not self._runners.is_blocked(one))
