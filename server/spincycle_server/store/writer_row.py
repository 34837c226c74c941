"""A writer's row in the table `writers`.

It shows whether a commit happened when its answer was lost, and up to which stamp changes are committed.
"""

from __future__ import annotations

import math
import time
import uuid

from sqlalchemy import Update, bindparam, delete, insert, select, update
from sqlalchemy.engine import Connection, Engine

from spincycle_server.database.clock import now_expression, now_or_parameter
from spincycle_server.database.dialects import insert_ignoring
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store.change_stamps import MAX_BATCH, stamp_of
from spincycle_server.store.schema import counters, writers

KEPT = 86_400_000_000
"""Microseconds without a commit after which other writers delete a writer's row."""

_REFRESH = KEPT / 2e6
"""Seconds without a commit after which a writer creates or refreshes its row: half of `KEPT`."""

COUNTER = "writers"
"""The name of the counter of writers."""

PRUNE_PREFIX = "prune-"
"""How the ids of writers begin that delete old requests."""


def _set_number(dialect_name: str) -> Update:
    now = now_or_parameter(dialect_name)
    return (
        update(writers)
        # A transaction of an earlier batch that the server runs late must not set the number back.
        .where(writers.c.writer_id == bindparam("key"), writers.c.batch < bindparam("number"))
        .values(batch=bindparam("number"), updated_at=now)
    )


_SET_NUMBER = RowStatement(_set_number)
_SELECT_NUMBER = select(writers.c.batch).where(writers.c.writer_id == bindparam("key")).with_for_update()


class WriterRow:
    """Numbers the batches of one writer. Each transaction stores the number of its batch in the row.

    Args:
        engine: Connects to the database.
        prefix: How the id of the row begins.
    """

    def __init__(self, engine: Engine, prefix: str = "") -> None:
        self._engine = engine
        self._prefix = prefix
        self.abandon()

    def abandon(self) -> None:
        """Continues with a new row, because a transaction of this one may still be committed, at any time.

        Otherwise, batches might be committed in another order than that of their numbers.
        """
        self._id = (self._prefix + uuid.uuid4().hex)[:20]
        self._writer = 0
        self._number = 0
        self._refreshed_at = -math.inf

    def next_batch(self) -> None:
        """Starts the next batch. If a batch's transaction is repeated, it has the same number."""
        if self._number == MAX_BATCH:
            self.abandon()
        self._number += 1

    @property
    def stamp(self) -> int:
        """The stamp of the rows that this batch changes. `ensure` must have been called."""
        return stamp_of(self._writer, self._number)

    @property
    def is_fresh(self) -> bool:
        """Whether the row certainly exists, and no other writer deletes it soon."""
        return time.monotonic() - self._refreshed_at < _REFRESH

    def ensure(self) -> None:
        """Creates or refreshes the row in a transaction of its own, unless it is fresh.

        `is_committed` needs the row: its lock makes the lookup wait for a transaction that is still ending.
        """
        if self.is_fresh:
            return
        with self._engine.begin() as connection:
            self.write(connection)
        self._refreshed_at = time.monotonic()

    def write(self, connection: Connection) -> None:
        """Creates or refreshes the row in an open transaction, which should have no other changes.

        Meanwhile, no other writer can create its row.
        """
        now = now_expression(connection)
        connection.execute(delete(writers).where(writers.c.updated_at < now - KEPT))
        # Refresh the time too: if the next batch fails, the row is not checked again for half a day.
        refreshed = update(writers).where(writers.c.writer_id == self._id).values(updated_at=now)
        if not connection.execute(refreshed).rowcount:
            # A row that was deleted gets a new number: nobody remembers the batches of the earlier one.
            self._writer = _next_number(connection)
            row = {"writer_id": self._id, "batch": self._number - 1, "updated_at": now}
            connection.execute(insert(writers).values(number=self._writer, **row))

    def store_number(self, transaction: Transaction) -> None:
        """Adds the number of the batch to a transaction."""
        row = {"key": self._id, "number": self._number, "now": time.time_ns() // 1000}
        # First in the packet, so that the row is locked before the other changes are made.
        transaction.change(_SET_NUMBER, [row], first=True)

    def committed(self) -> None:
        """Notes that a transaction with the number is committed, so the row exists."""
        self._refreshed_at = time.monotonic()

    def is_committed(self) -> bool:
        """Looks up whether a transaction of this batch is committed. Waits for one that is still ending."""
        with self._engine.connect() as connection:
            number = connection.scalar(_SELECT_NUMBER, {"key": self._id})
        return bool(number == self._number)


def _next_number(connection: Connection) -> int:
    """Returns a number that no writer has had. Other transactions wait for the end of this one."""
    count = update(counters).where(counters.c.name == COUNTER).values(value=counters.c.value + 1)
    if not connection.execute(count).rowcount:
        connection.execute(insert_ignoring(connection.dialect.name, counters), {"name": COUNTER, "value": 0})
        connection.execute(count)
    return int(connection.scalars(select(counters.c.value).where(counters.c.name == COUNTER)).one())
