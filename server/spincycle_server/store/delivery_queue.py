"""The deliveries of a database behind coroutines, as the Store has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from spincycle_grpc.state import State
from spincycle_server.database.read_pool import ReadPool
from spincycle_server.store.deliveries import TEST, Occurrence
from spincycle_server.store.delivery_attempts import (
    ClaimAttempts,
    DeliveryKey,
    DueDelivery,
    EndAttempt,
    WaitingDeliveries,
    due_deliveries,
    waiting_deliveries,
)
from spincycle_server.store.delivery_changes import AddTest, Redeliver
from spincycle_server.store.delivery_listing import DeliveryPage, list_deliveries
from spincycle_server.store.delivery_upkeep import (
    NO_TARGET,
    TOO_OLD,
    DeleteDeliveries,
    old_deliveries,
    overdue_deliveries,
)
from spincycle_server.store.group_commit import GroupCommitWriter

if TYPE_CHECKING:
    from spincycle_grpc.v1.notification_pb2 import DeliveryFilter
    from spincycle_server.store.audit import EventRow


class DeliveryQueue:
    """The deliveries. Every method may raise UnavailableError if the database cannot be used now.

    Args:
        reader: Reads.
        writer: Makes changes.
        statement_limit: Seconds after which MariaDB and MySQL end the statement of a list.
    """

    def __init__(self, reader: ReadPool, writer: GroupCommitWriter, *, statement_limit: float | None) -> None:
        self._statement_limit = statement_limit
        self._reader = reader
        self._writer = writer

    async def due(self, target: str, limit: int) -> list[DueDelivery]:
        """Returns deliveries to a target of which an attempt is due, the longest due first."""
        return await self._reader.read(due_deliveries, target, limit)

    async def claim(self, due: Sequence[DueDelivery], seconds: float) -> list[DueDelivery]:
        """Claims attempts. Returns those that nobody else has claimed, with their new numbers of attempts.

        Args:
            due: The deliveries, as `due` returned them.
            seconds: How long nobody else may claim them.
        """
        claimed: list[DueDelivery] = await self._writer.write(ClaimAttempts(due, seconds))
        return claimed

    async def delivered(self, claimed: DueDelivery) -> None:
        """Stores that an attempt succeeded."""
        await self._writer.write(EndAttempt(claimed, "", None))

    async def failed(self, claimed: DueDelivery, error: str, pause: float | None) -> None:
        """Stores that an attempt failed.

        Args:
            claimed: The delivery, as it was claimed.
            error: Why.
            pause: Seconds until the next attempt; None to give up.
        """
        await self._writer.write(EndAttempt(claimed, error, pause))

    async def redeliver(
        self, key: DeliveryKey, event: Callable[[str | None, str], EventRow | None] = lambda *_: None
    ) -> None:
        """Lets an ended delivery be sent again.

        Args:
            key: The delivery.
            event: Returns the row of the audit event for the id and the type of the delivery's request.

        Raises:
            NotFoundError: There is no such delivery. Reason: DELIVERY_NOT_FOUND.
            FailedPreconditionError: It has not ended. Reason: DELIVERY_WAITING.
        """
        await self._writer.write(Redeliver(key, event))

    async def add_test(self, target: str, event: EventRow | None = None) -> str:
        """Adds the delivery of a test event to a target. Returns the id of the event."""
        test = Occurrence(TEST, "", None, State.UNKNOWN, time.time_ns() // 1000)
        event_id: str = await self._writer.write(AddTest(target, test, event))
        return event_id

    async def list(self, wanted: DeliveryFilter) -> DeliveryPage:
        """Returns a page of the deliveries that match a filter, newest first.

        Raises:
            InvalidArgumentError: The filter is invalid. Reason: BAD_FILTER.
            DeadlineExceededError: The statement took too long. Reason: FIND_TOO_SLOW.
        """
        return await self._reader.read(list_deliveries, wanted, statement_limit=self._statement_limit)

    async def waiting(self, targets: Collection[str]) -> WaitingDeliveries:
        """Returns how many deliveries to some targets wait."""
        return await self._reader.read(waiting_deliveries, targets)

    async def give_up_overdue(self, targets: Collection[str]) -> Sequence[str]:
        """Gives up some of the deliveries that have waited for days.

        Args:
            targets: The targets that are known.

        Returns:
            The target of each of them. There may be more unless there are none.
        """
        overdue = await self._reader.read(overdue_deliveries)
        for one in overdue:
            error = TOO_OLD if one.key.target in targets else NO_TARGET
            await self._writer.write(EndAttempt(one, error, None))
        return [one.key.target for one in overdue]

    async def delete_old(self) -> bool:
        """Deletes some of the deliveries that ended long ago. Returns whether there may be more."""
        old = await self._reader.read(old_deliveries)
        if old:
            await self._writer.write(DeleteDeliveries(old))
        return bool(old)
