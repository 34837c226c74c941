"""The audit log for operators' commands: reads it, deletes old events, and records what commands do."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial

from sqlalchemy import delete, func, or_, select
from sqlalchemy.engine import Connection, Engine

from spincycle_grpc.v1.audit_pb2 import AuditEvent, AuditFilter
from spincycle_server.database.engine import DatabaseOptions
from spincycle_server.database.retrying import in_transaction
from spincycle_server.maintenance.batches import delete_in_batches
from spincycle_server.maintenance.operator_database import OperatorDatabase
from spincycle_server.store.audit import OK, new_event_id, record_event
from spincycle_server.store.audit_listing import Position, next_events
from spincycle_server.store.schema import audit_events

BLOCK = 1000
"""Events that a command reads or deletes in one transaction."""


class AuditTable:
    """The audit log of a database.

    Every method may raise UnavailableError if the database cannot be used.

    Args:
        engine: Connects to the database.
        patience: Seconds for which a failed transaction is retried.
    """

    def __init__(self, engine: Engine, *, patience: float) -> None:
        self._engine = engine
        self._patience = patience

    def events(self, wanted: AuditFilter) -> Iterator[AuditEvent]:
        """Yields the events that match a filter, oldest first, and holds only a block of them in memory.

        Raises:
            InvalidArgumentError: A time of the filter is invalid. Reason: BAD_FILTER.
        """
        position: Position | None = None
        while True:
            read = partial(next_events, wanted=wanted, after=position, size=BLOCK)
            events, position = in_transaction(self._engine, read, patience=self._patience, reads=True)
            yield from events
            if len(events) < BLOCK:
                return

    def count(self, before: int) -> int:
        """Returns how many events are older than a time in microseconds since the Unix epoch."""
        count = partial(_count, before=before)
        return in_transaction(self._engine, count, patience=self._patience, reads=True)

    def prune(self, before: int, progress: Callable[[int], None], is_interrupted: Callable[[], bool]) -> bool:
        """Deletes the events that are older than a time, oldest first.

        Args:
            before: The time in microseconds since the Unix epoch.
            progress: Called after each transaction with the number of deleted events.
            is_interrupted: Called between transactions; returns whether to stop.

        Returns:
            Whether all such events are deleted; False if the run was interrupted.
        """
        delete_batch = partial(_delete_oldest, before=before)
        return delete_in_batches(
            self._engine, delete_batch, progress, is_interrupted, patience=self._patience
        )

    def record(self, event: AuditEvent) -> None:
        """Adds an event. Does nothing if the log is empty, because then authentication is off."""
        in_transaction(self._engine, partial(_record, event=event), patience=self._patience)


@contextlib.contextmanager
def opened_audit(url: str, options: DatabaseOptions) -> Iterator[AuditTable]:
    """Yields the audit log of a database.

    Args:
        url: The database.
        options: How to connect.

    Raises:
        InvalidArgumentError: The URL is invalid or names an unsupported database.
        FailedPreconditionError: The schema is older or newer than this program's, or the SQLite file does
            not exist.
        UnavailableError: The database cannot be used.
    """
    with contextlib.closing(OperatorDatabase(url, options)) as database:
        database.check()
        yield AuditTable(database.engine, patience=options.timeout)


def command_event(operation: str, detail: str = "") -> AuditEvent:
    """Returns the event of an operator's command, for `store.audit.record_event`.

    The command runs as a user of this machine, who can read the password of the database anyway.

    Args:
        operation: The command: "spincycle prune".
        detail: What it did. It must contain no secret.
    """
    event = AuditEvent(
        id=new_event_id(),
        user=_user(),
        auth_method="operator",
        peer=socket.gethostname(),
        transport="command",
        operation=operation,
        outcome=OK,
        count=1,
        detail=detail,
    )
    event.occurred_at.FromMicroseconds(time.time_ns() // 1000)
    return event


def _record(connection: Connection, event: AuditEvent) -> None:
    if connection.execute(select(audit_events.c.event_id).limit(1)).first() is not None:
        record_event(connection, event)


def _count(connection: Connection, before: int) -> int:
    query = select(func.count()).select_from(audit_events).where(audit_events.c.occurred_at < before)
    return int(connection.execute(query).scalar_one())


def _delete_oldest(connection: Connection, before: int) -> int:
    """Deletes the oldest events before a time, at most `BLOCK`. Returns how many."""
    columns = audit_events.c
    oldest = connection.execute(
        select(columns.occurred_at, columns.event_id)
        .where(columns.occurred_at < before)
        .order_by(columns.occurred_at, columns.event_id)
        .limit(BLOCK)
    ).all()
    if not oldest:
        return 0
    newest_time, newest_id = oldest[-1]
    is_among_them = or_(columns.occurred_at < newest_time, columns.event_id <= newest_id)
    statement = delete(audit_events).where(columns.occurred_at <= newest_time, is_among_them)
    return connection.execute(statement).rowcount


def _user() -> str:
    """Returns the name of the user who runs this process; its number if it has no name."""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())
