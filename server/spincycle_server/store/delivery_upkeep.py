"""Deletes old deliveries, and finds those that have waited for too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import delete, func, select
from sqlalchemy.engine import Connection

from spincycle_server.database.clock import database_now
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.delivery_attempts import IS_WAITING, KEY, DeliveryKey, DueDelivery, due_of
from spincycle_server.store.schema import deliveries
from spincycle_server.store.write import Write

KEPT = 30 * 86_400_000_000
"""Microseconds for which a delivery is kept after its end."""

LONGEST_WAIT = 3 * 86_400_000_000
"""Microseconds since an event, or since its redelivery, after which its delivery is given up."""

DELETED_AT_ONCE = 500
"""Deliveries that one transaction deletes or gives up."""

NO_TARGET = "no server has a target with this name"
TOO_OLD = "it has waited for more than 3 days"


def old_deliveries(connection: Connection) -> list[DeliveryKey]:
    """Returns deliveries that ended so long ago that they are deleted."""
    query = (
        select(deliveries.c.event_id, deliveries.c.target)
        .where(deliveries.c.ended_at < database_now(connection) - KEPT)
        .limit(DELETED_AT_ONCE)
    )
    return [DeliveryKey(*row) for row in connection.execute(query)]


def overdue_deliveries(connection: Connection) -> list[DueDelivery]:
    """Returns deliveries that have waited for too long, and that nobody is sending."""
    now = database_now(connection)
    query = (
        select(deliveries)
        .where(
            IS_WAITING,
            func.coalesce(deliveries.c.redelivered_at, deliveries.c.occurred_at) < now - LONGEST_WAIT,
            deliveries.c.next_attempt_at <= now,
        )
        .limit(DELETED_AT_ONCE)
    )
    return [due_of(row) for row in connection.execute(query)]


@dataclass(slots=True)
class DeleteDeliveries(Write):
    """Deletes deliveries that have ended. Result: None."""

    order: ClassVar[int] = 12
    keys: Sequence[DeliveryKey]

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[DeleteDeliveries]) -> Sequence[None]:
        """Deletes the rows, unless somebody has redelivered them meanwhile."""
        keys = sorted({key for write in writes for key in write.keys})
        transaction.execute(delete(deliveries).where(KEY.in_(keys), deliveries.c.ended_at.is_not(None)))
        return [None] * len(writes)
