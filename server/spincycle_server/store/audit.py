"""The audit log: stores events, in the transaction of their effect if they have one.

A write with an effect carries the row of its event. Rows are collected with the other changes of the
transaction, so an event costs no round trip of its own.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from sqlalchemy import insert
from sqlalchemy.engine import Connection

from spincycle_grpc.v1.audit_pb2 import AuditEvent
from spincycle_server.database.dialects import insert_ignoring
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store.rows import microseconds_of, set_microseconds
from spincycle_server.store.schema import audit_events
from spincycle_server.store.write import Write

EventRow: TypeAlias = Mapping[str, Any]
"""A row of `audit_events`."""

OK = "OK"
"""The outcome of an event that is not a denial."""

_LONGEST_ID = 20
# Ids need not be secret. `os.urandom` would release the interpreter's lock for each event, and wait for it.
_random = random.Random(os.urandom(32))  # noqa: S311
os.register_at_fork(after_in_child=_random.seed)  # Events with equal ids would be taken for the same one.
_INSERT_EVENT = RowStatement(lambda _: insert(audit_events))


def new_event_id() -> str:
    """Returns a random id: 20 characters of 0-9a-f."""
    return f"{_random.getrandbits(4 * _LONGEST_ID):0{_LONGEST_ID}x}"


def effect_row(
    *,
    user: str,
    auth_method: str,
    peer: str,
    transport: str,
    operation: str,
    request_id: str,
    request_type: str,
) -> EventRow:
    """Returns the row of an event that happens now and has an effect.

    It is made without a message in between, because each call with an effect makes one. The arguments are the
    fields of the event.
    """
    return {
        "occurred_at": time.time_ns() // 1000,
        "event_id": new_event_id(),
        "user": user,
        "auth_method": auth_method,
        "peer": peer,
        "transport": transport,
        "operation": operation,
        "request_id": request_id if is_id(request_id) else None,
        "request_type": request_type,
        "outcome": OK,
        "count": 1,
        "detail": "",
    }


def event_row(event: AuditEvent) -> EventRow:
    """Returns the row of an event, with a new id if it has none. Texts are truncated when they are stored."""
    return {
        "occurred_at": microseconds_of(event.occurred_at),
        "event_id": event.id or new_event_id(),
        "user": event.user,
        "auth_method": event.auth_method,
        "peer": event.peer,
        "transport": event.transport,
        "operation": event.operation,
        "request_id": event.request_id if is_id(event.request_id) else None,
        "request_type": event.request_type,
        "outcome": event.outcome,
        "count": event.count,
        "detail": event.detail,
    }


def event_of(row: Any) -> AuditEvent:
    """Returns the event of a row of `audit_events`."""
    event = AuditEvent(
        id=row.event_id,
        user=row.user,
        auth_method=row.auth_method,
        peer=row.peer,
        transport=row.transport,
        operation=row.operation,
        request_id=row.request_id or "",
        request_type=row.request_type,
        outcome=row.outcome,
        count=row.count,
        detail=row.detail,
    )
    set_microseconds(event.occurred_at, row.occurred_at)
    return event


def is_id(text: str) -> bool:
    """Whether a text can be the id of a request. Callers may send any text as an id."""
    return 0 < len(text) <= _LONGEST_ID and text.isascii() and text.isalnum()


def record_events(transaction: Transaction, rows: Sequence[EventRow]) -> None:
    """Adds events to the changes of a transaction."""
    transaction.change(_INSERT_EVENT, rows)


def record_event(connection: Connection, event: AuditEvent) -> None:
    """Stores one event in the open transaction of an operator's command.

    If the event has an id, the transaction can be repeated: the event is stored once.
    """
    connection.execute(insert_ignoring(connection.dialect.name, audit_events), event_row(event))


@dataclass(slots=True)
class RecordEvents(Write):
    """Stores events that have no effect of their own, such as denials. Result: None."""

    order: ClassVar[int] = 101
    events: Sequence[EventRow]

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[RecordEvents]) -> Sequence[None]:
        """Collects all events, which are sent with the other changes."""
        record_events(transaction, [row for write in writes for row in write.events])
        return [None] * len(writes)
