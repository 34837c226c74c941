"""Sends the deliveries to one target, a few at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import SpinCycleError, UnavailableError
from spincycle_server.notifications.attempt import LIMIT, Outcome, attempt
from spincycle_server.notifications.bodies import body_of
from spincycle_server.notifications.contents import contents_of
from spincycle_server.notifications.retry_pauses import pause_after
from spincycle_server.store.deliveries import TEST

if TYPE_CHECKING:
    from spincycle_server.notifications.targets import Targets
    from spincycle_server.store import Store
    from spincycle_server.store.delivery_attempts import DueDelivery

logger = structlog.get_logger(__name__)

CONCURRENCY = 4
"""The attempts at a time to one target, by all workers of a server. So a receiver that stalls delays no other
target."""

INTERVAL = 5.0
"""Seconds between two looks for deliveries that are due. New ones of this server are sent at once."""

CLAIM = 60.0
"""Seconds for which a server claims an attempt: if the server dies, another one tries afterwards."""

LATEST_START = 30.0
"""Seconds after a claim within which its attempt must begin. So it ends before the claim does."""


class TargetSender:
    """Sends the deliveries to one target.

    Args:
        name: The name of the target.
        targets: The targets, which may be replaced.
        store: The deliveries and their requests.
        public_url: The URL of the web page; "" if nobody knows it.
        count: Counts an attempt: called with its outcome, "delivered", "failed" or "given_up".
        concurrency: The attempts at a time.
    """

    def __init__(
        self,
        name: str,
        targets: Targets,
        store: Store,
        public_url: str,
        count: Callable[[str], None],
        *,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._concurrency = concurrency
        self._name = name
        self._targets = targets
        self._store = store
        self._public_url = public_url
        self._count = count
        self._wake = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Looks for deliveries at once."""
        self._wake.set()

    async def run(self) -> None:
        """Sends deliveries until cancelled. Attempts that are cancelled are made again after their claim."""
        try:
            while True:
                has_more = False
                try:
                    has_more = await self._begin_attempts()
                except SpinCycleError as error:
                    logger.warning("no notifications sent now", target=self._name, error=str(error))
                except Exception as error:  # The next look may succeed.
                    logger.error("notifications raised an exception", target=self._name, exc_info=error)
                if not has_more:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(INTERVAL):
                            await self._wake.wait()
                self._wake.clear()
        finally:
            for task in self._sending:
                task.cancel()
            if self._sending:
                await asyncio.wait(self._sending)

    async def _begin_attempts(self) -> bool:
        """Claims due deliveries and begins their attempts. Returns whether to look again at once."""
        room = self._concurrency - len(self._sending)
        if room <= 0:
            return False
        due = await self._store.deliveries.due(self._name, room)
        if not due:
            return False
        latest = time.monotonic() + LATEST_START
        for claimed in await self._store.deliveries.claim(due, CLAIM):
            task = asyncio.create_task(self._send(claimed, latest), name="notification")
            self._sending.add(task)
            task.add_done_callback(self._sent)
        return len(self._sending) < self._concurrency

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a notification raised an exception", target=self._name, exc_info=error)

    async def _send(self, claimed: DueDelivery, latest: float) -> None:
        """Makes one attempt and stores its outcome. If that fails, the attempt is made again."""
        try:
            outcome = await self._outcome_of(claimed, latest)
            if outcome is None:
                return
            if not outcome.error:
                await self._store.deliveries.delivered(claimed)
                self._count("delivered")
                return
            is_last = outcome.is_final or claimed.occurrence.event == TEST
            pause = None if is_last else pause_after(claimed.attempts, outcome.retry_after)
            await self._store.deliveries.failed(claimed, outcome.error, pause)
        except SpinCycleError as error:
            logger.warning("notification unsure: it is sent again", **self._names(claimed), error=str(error))
            return
        # Only the person who sent a test needs to hear that it failed.
        given_up = pause is None and claimed.occurrence.event != TEST
        self._count("given_up" if given_up else "failed")
        logger.warning(
            "notification given up" if given_up else "notification not delivered",
            **self._names(claimed),
            attempts=claimed.attempts,
            error=outcome.error,
        )

    async def _outcome_of(self, claimed: DueDelivery, latest: float) -> Outcome | None:
        """Makes an attempt. An error of this program is an outcome too: otherwise it would repeat for ever.

        Raises:
            UnavailableError: The database cannot be used now, which says nothing about the delivery.
        """
        try:
            return await self._attempt(claimed, latest)
        except UnavailableError:
            raise
        except Exception as error:
            logger.error("a notification raised an exception", **self._names(claimed), exc_info=error)
            return Outcome(f"internal error: {type(error).__name__}")

    async def _attempt(self, claimed: DueDelivery, latest: float) -> Outcome | None:
        """Makes an attempt. Returns None if it is too late, because the claim may end before the attempt."""
        target = self._targets.get(self._name)
        if target is None:
            return None
        content = await contents_of(self._store, claimed, target, self._public_url)
        body = body_of(content, target)
        if time.monotonic() > latest:
            return None
        return await attempt(self._targets, target, claimed.key.event_id, body, LIMIT)

    def _names(self, claimed: DueDelivery) -> dict[str, str]:
        return {
            "target": self._name,
            "event_id": claimed.key.event_id,
            "request_id": claimed.occurrence.request_id or "",
        }
