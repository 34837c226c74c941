"""The notifications of a Request Manager: sends deliveries, measures them and deletes old ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_server.notifications.sender import CONCURRENCY, TargetSender
from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import Counters

if TYPE_CHECKING:
    from spincycle_server.notifications.targets import Targets
    from spincycle_server.store import Store
    from spincycle_server.telemetry.metrics import ServerMetrics

logger = structlog.get_logger(__name__)

MEASURE_INTERVAL = 15.0
"""Seconds between two looks at what waits."""

CLEANING_INTERVAL = 3600.0
"""Seconds between two deletions of old deliveries."""

OUTCOMES = ("delivered", "failed", "given_up")
"""How an attempt to deliver a notification can end."""


class Notifier:
    """Sends the deliveries of a database to the targets of this server.

    Without targets it only gives up and deletes deliveries that earlier targets have left.

    Args:
        targets: The targets. Their names stay the same.
        store: The deliveries and their requests.
        public_url: The URL of the web page; "" if nobody knows it.
        sharers: The number of workers of this server, which share the attempts at a time.

    Attributes:
        attempts: Counts attempts by target and outcome.
        waiting: The deliveries that waited at the last look.
        oldest_waiting: The age of the oldest of them in seconds; 0 without one.
    """

    def __init__(self, targets: Targets, store: Store, public_url: str, sharers: int = 1) -> None:
        self._targets = targets
        self._store = store
        self.attempts = Counters(catalogue.NOTIFICATION_ATTEMPTS)
        self.waiting = 0
        self.oldest_waiting = 0.0
        for name in targets.names:
            for outcome in OUTCOMES:
                self.attempts.of(name, outcome)
        self._senders = {
            name: TargetSender(
                name,
                targets,
                store,
                public_url,
                partial(self._count, name),
                concurrency=-(-CONCURRENCY // sharers),
            )
            for name in targets.names
        }
        if self._senders:  # Otherwise the ends of requests need not look for targets.
            store.notify(targets, self._added)

    def add_to(self, metrics: ServerMetrics) -> None:
        """Adds everything to the metrics of a server."""
        metrics.add([self.attempts])
        metrics.read_one(catalogue.WAITING_NOTIFICATIONS, lambda: float(self.waiting))
        metrics.read_one(catalogue.OLDEST_NOTIFICATION_SECONDS, lambda: self.oldest_waiting)

    @property
    def names(self) -> Sequence[str]:
        """The names of the targets, in order."""
        return self._targets.names

    async def run(self) -> None:
        """Sends deliveries and removes old ones until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for sender in self._senders.values():
                tasks.create_task(sender.run())
            if self._senders:
                tasks.create_task(self._measure())
            tasks.create_task(self._clean_up())

    def wake(self, target: str) -> None:
        """Looks for deliveries to a target at once."""
        if target in self._senders:
            self._senders[target].wake()

    def _added(self, targets: Iterable[str]) -> None:
        for target in targets:
            self.wake(target)

    def _count(self, target: str, outcome: str) -> None:
        self.attempts.of(target, outcome).value += 1

    async def _measure(self) -> None:
        while True:
            try:
                found = await self._store.deliveries.waiting(self._targets.names)
                self.waiting, self.oldest_waiting = found.number, found.oldest
            except SpinCycleError as error:
                logger.warning("waiting notifications not counted", error=str(error))
            await asyncio.sleep(MEASURE_INTERVAL)

    def _count_given_up(self, targets: Sequence[str]) -> None:
        logger.warning("notifications given up that waited for days", number=len(targets))
        for target in targets:
            if target in self._senders:
                self._count(target, "given_up")

    async def _clean_up(self) -> None:
        while True:
            try:
                while given_up := await self._store.deliveries.give_up_overdue(self._targets.names):
                    self._count_given_up(given_up)
                while await self._store.deliveries.delete_old():
                    pass
            except SpinCycleError as error:
                logger.warning("old notifications not deleted", error=str(error))
            await asyncio.sleep(CLEANING_INTERVAL)
