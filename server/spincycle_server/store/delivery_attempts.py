"""The attempts of deliveries: which are due, who makes them, and how they ended.

A Request Manager claims an attempt for some time by the database's clock. It counts the attempt and moves the
next one to the end of the claim, under the lock of the row. So no two of them send the same delivery at a
time, and a delivery whose sender died is due again when the claim ends. An outcome is stored only if its
attempt is still the newest one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from sqlalchemy import and_, bindparam, func, select, tuple_, update
from sqlalchemy.engine import Connection

from spincycle_grpc.v1.notification_pb2 import (
    DELIVERY_STATE_DELIVERED,
    DELIVERY_STATE_GIVEN_UP,
    DELIVERY_STATE_WAITING,
)
from spincycle_server.database.clock import database_now
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.deliveries import Occurrence
from spincycle_server.store.schema import deliveries
from spincycle_server.store.write import Write

KEY = tuple_(deliveries.c.event_id, deliveries.c.target)
"""The key of a delivery."""

IS_WAITING = deliveries.c.delivery_state == DELIVERY_STATE_WAITING
IS_KEY = and_(deliveries.c.event_id == bindparam("key_id"), deliveries.c.target == bindparam("key_target"))
_CLAIM = (
    update(deliveries)
    .where(IS_KEY)
    .values(attempts=bindparam("new_attempts"), next_attempt_at=bindparam("new_next"))
)
_END_ATTEMPT = (
    update(deliveries)
    .where(IS_KEY, IS_WAITING, deliveries.c.attempts == bindparam("key_attempts"))
    .values(
        delivery_state=bindparam("new_state"),
        next_attempt_at=bindparam("new_next"),
        ended_at=bindparam("new_ended_at"),
        last_error=bindparam("new_error"),
    )
)


class DeliveryKey(NamedTuple):
    """What identifies a delivery."""

    event_id: str
    target: str


class DueDelivery(NamedTuple):
    """A delivery of which an attempt is due, or is claimed.

    Attributes:
        key: Its key.
        occurrence: What happened.
        attempts: The attempts that have begun.
        next_attempt_at: As in the table.
    """

    key: DeliveryKey
    occurrence: Occurrence
    attempts: int
    next_attempt_at: int


def due_deliveries(connection: Connection, target: str, limit: int) -> list[DueDelivery]:
    """Returns deliveries to a target of which an attempt is due, the longest due first."""
    query = (
        select(deliveries)
        .where(
            deliveries.c.target == target,
            IS_WAITING,
            deliveries.c.next_attempt_at <= database_now(connection),
        )
        .order_by(deliveries.c.next_attempt_at)
        .limit(limit)
    )
    return [due_of(row) for row in connection.execute(query)]


def due_of(row: Any) -> DueDelivery:
    """Returns the delivery of a row."""
    detail = None if row.detail is None else bytes(row.detail)
    occurrence = Occurrence(
        row.event, row.request_type, row.request_id, row.request_state, row.occurred_at, detail
    )
    return DueDelivery(DeliveryKey(row.event_id, row.target), occurrence, row.attempts, row.next_attempt_at)


class WaitingDeliveries(NamedTuple):
    """How many deliveries wait, and since when the oldest does, in seconds; 0 without one."""

    number: int
    oldest: float


def waiting_deliveries(connection: Connection, targets: Collection[str]) -> WaitingDeliveries:
    """Returns what waits for some targets."""
    query = select(func.count(), func.min(deliveries.c.occurred_at)).where(
        deliveries.c.target.in_(targets), IS_WAITING
    )
    number, oldest = connection.execute(query).one()
    age = 0.0 if oldest is None else max(database_now(connection) - oldest, 0) / 1e6
    return WaitingDeliveries(number, age)


@dataclass(slots=True)
class ClaimAttempts(Write):
    """Claims attempts that are due. Result: the claimed deliveries, with their new numbers of attempts."""

    order: ClassVar[int] = 11
    due: Sequence[DueDelivery]
    claim: float

    @classmethod
    def apply_all(
        cls, transaction: Transaction, writes: Sequence[ClaimAttempts]
    ) -> Sequence[list[DueDelivery]]:
        """Locks the rows, and claims those that are as they were read."""
        states = locked_states(transaction, [one.key for write in writes for one in write.due])
        now = database_now(transaction.connection)
        results = []
        for write in writes:
            until = now + round(write.claim * 1e6)
            claimed = []
            for one in write.due:
                expected = (DELIVERY_STATE_WAITING, one.attempts, one.next_attempt_at)
                if states.pop(one.key, None) == expected:
                    claimed.append(one._replace(attempts=one.attempts + 1, next_attempt_at=until))
            results.append(claimed)
        rows = [
            {
                "key_id": one.key.event_id,
                "key_target": one.key.target,
                "new_attempts": one.attempts,
                "new_next": one.next_attempt_at,
            }
            for claimed in results
            for one in claimed
        ]
        if rows:
            transaction.execute(_CLAIM, rows)
        return results


def locked_states(
    transaction: Transaction, keys: Collection[DeliveryKey]
) -> dict[DeliveryKey, tuple[int, int, int]]:
    """Locks rows, and returns their states, attempts and next attempts."""
    columns = deliveries.c
    query = (
        select(
            columns.event_id,
            columns.target,
            columns.delivery_state,
            columns.attempts,
            columns.next_attempt_at,
        )
        .where(columns.event_id.in_(sorted({key.event_id for key in keys})), KEY.in_(sorted(set(keys))))
        # All transactions take locks in the same order, because otherwise they could deadlock.
        .order_by(columns.event_id, columns.target)
        .with_for_update()
    )
    return {
        DeliveryKey(row.event_id, row.target): (row.delivery_state, row.attempts, row.next_attempt_at)
        for row in transaction.execute(query)
    }


@dataclass(slots=True)
class EndAttempt(Write):
    """Stores the outcome of a claimed attempt, if no later attempt has begun. Result: None.

    Attributes:
        claimed: The delivery, as it was claimed.
        error: Why the attempt failed; "" if it succeeded.
        pause: Seconds until the next attempt; None if there is none.
    """

    order: ClassVar[int] = 11
    claimed: DueDelivery
    error: str
    pause: float | None

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[EndAttempt]) -> Sequence[None]:
        """Changes the rows in the order of their keys."""
        now = database_now(transaction.connection)
        ordered = sorted(writes, key=lambda write: write.claimed.key)
        transaction.execute(_END_ATTEMPT, [write.row(now) for write in ordered])
        return [None] * len(writes)

    def row(self, now: int) -> dict[str, Any]:
        """Returns the parameters of the statement."""
        state = DELIVERY_STATE_WAITING
        if self.pause is None:
            state = DELIVERY_STATE_GIVEN_UP if self.error else DELIVERY_STATE_DELIVERED
        return {
            "key_id": self.claimed.key.event_id,
            "key_target": self.claimed.key.target,
            "key_attempts": self.claimed.attempts,
            "new_state": state,
            "new_next": now + round((self.pause or 0) * 1e6),
            "new_ended_at": now if self.pause is None else None,
            "new_error": self.error,
        }
