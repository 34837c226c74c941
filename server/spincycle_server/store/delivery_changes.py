"""What administrators do with deliveries: send one again, and send a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import bindparam, select, update

from spincycle_grpc.errors import FailedPreconditionError, NotFoundError, SpinCycleError
from spincycle_grpc.v1.notification_pb2 import DELIVERY_STATE_WAITING
from spincycle_server.database.clock import database_now
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.audit import EventRow, record_events
from spincycle_server.store.deliveries import INSERT_DELIVERY, Occurrence, delivery_rows
from spincycle_server.store.delivery_attempts import IS_KEY, KEY, DeliveryKey, locked_states
from spincycle_server.store.schema import deliveries
from spincycle_server.store.write import Write

_REDELIVER = (
    update(deliveries)
    .where(IS_KEY)
    .values(
        delivery_state=DELIVERY_STATE_WAITING,
        attempts=0,
        next_attempt_at=bindparam("now"),
        ended_at=None,
        last_error="",
        redelivered_at=bindparam("now"),
    )
)


@dataclass(slots=True)
class Redeliver(Write):
    """Lets an ended delivery be sent again. Result: None, or an error."""

    order: ClassVar[int] = 11
    key: DeliveryKey
    event: Callable[[str | None, str], EventRow | None]

    @classmethod
    def apply_all(
        cls, transaction: Transaction, writes: Sequence[Redeliver]
    ) -> Sequence[SpinCycleError | None]:
        """Locks the rows, and changes those that have ended."""
        states = locked_states(transaction, [write.key for write in writes])
        results: list[SpinCycleError | None] = []
        for write in writes:
            state = states.get(write.key)
            results.append(_refusal(write.key, state))
            if results[-1] is None:
                states[write.key] = (DELIVERY_STATE_WAITING, 0, 0)
        done = [write for write, result in zip(writes, results, strict=True) if result is None]
        if done:
            _send_again(transaction, done)
        return results


def _send_again(transaction: Transaction, writes: Sequence[Redeliver]) -> None:
    keys = [write.key for write in writes]
    query = select(
        deliveries.c.event_id, deliveries.c.target, deliveries.c.request_id, deliveries.c.request_type
    ).where(KEY.in_(sorted(keys)))
    about = {DeliveryKey(row.event_id, row.target): row for row in transaction.execute(query)}
    now = database_now(transaction.connection)
    parameters = [{"key_id": key.event_id, "key_target": key.target, "now": now} for key in sorted(keys)]
    transaction.execute(_REDELIVER, parameters)
    events = [write.event(about[write.key].request_id, about[write.key].request_type) for write in writes]
    record_events(transaction, [event for event in events if event is not None])


def _refusal(key: DeliveryKey, state: tuple[int, int, int] | None) -> SpinCycleError | None:
    if state is None:
        return NotFoundError(
            f"no event {key.event_id} was sent to the target {key.target}: take both from the list of "
            "deliveries",
            reason="DELIVERY_NOT_FOUND",
        )
    if state[0] == DELIVERY_STATE_WAITING:
        return FailedPreconditionError(
            f"the delivery of event {key.event_id} to {key.target} has not ended, and is tried again without "
            "help: wait until it is delivered or given up",
            reason="DELIVERY_WAITING",
        )
    return None


@dataclass(slots=True)
class AddTest(Write):
    """Adds the delivery of a test event. Result: the id of the event."""

    order: ClassVar[int] = 11
    target: str
    occurrence: Occurrence
    event: EventRow | None

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[AddTest]) -> Sequence[str]:
        """Inserts the rows."""
        rows = [row for write in writes for row in delivery_rows(write.occurrence, [write.target])]
        transaction.change(INSERT_DELIVERY, rows)
        record_events(transaction, [write.event for write in writes if write.event is not None])
        return [row["event_id"] for row in rows]
