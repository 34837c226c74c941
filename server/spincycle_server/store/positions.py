"""Positions: which changes are committed, as the newest committed batch of each writer.

A writer commits its batches in order, and its row in `writers` changes in the same transaction. So when the
rows of all writers are read by one statement, each later statement sees every row whose stamp is within them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias
from zlib import crc32

from sqlalchemy import Select, select
from sqlalchemy.engine import Connection

from spincycle_server.database.clock import database_now, now_column, now_of
from spincycle_server.database.keyed_read import KeyedRead
from spincycle_server.store.change_stamps import batch_of, stamp_of
from spincycle_server.store.schema import counters, writers
from spincycle_server.store.writer_row import COUNTER, KEPT, PRUNE_PREFIX

MAX_AGE = KEPT // 2
"""Microseconds for which a position can be compared with a later one.

The rows of writers are kept for longer. So a writer that appeared later and has committed is not forgotten.
"""

Span: TypeAlias = tuple[int, int]
"""The stamps after the first number, up to the second one."""


class WriterPosition(NamedTuple):
    """The position of one writer.

    Attributes:
        batch: Its newest committed batch.
        digest: 16 bits that tell it from a writer that has the same number in another database.
        updated_at: When its row was last written, in microseconds by the database's clock; 0 in a cursor.
        prunes: Whether it deletes old requests.
    """

    batch: int
    digest: int
    updated_at: int = 0
    prunes: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """Everything that was committed at one moment.

    Attributes:
        writers: The position of each writer, by its number.
        newest: The newest number of a writer.
        read_at: When the position was read, in microseconds by the database's clock.
    """

    writers: Mapping[int, WriterPosition]
    newest: int
    read_at: int

    def has(self, stamp: int | None) -> bool:
        """Whether the transaction of a stamp was committed. Rows without a stamp are older than all."""
        if stamp is None:
            return True
        number, batch = batch_of(stamp)
        writer = self.writers.get(number)
        # The row of a writer is deleted a day after its last commit.
        return number <= self.newest if writer is None else batch <= writer.batch

    def spans_since(self, earlier: Position) -> list[Span]:
        """Returns the stamps that this position has, and an earlier one has not."""
        spans = []
        for number, writer in self.writers.items():
            before = earlier.writers.get(number)
            batch = 0 if before is None else before.batch
            if writer.batch > batch:
                spans.append((stamp_of(number, batch), stamp_of(number, writer.batch)))
        return spans

    def deletes_since(self, earlier: Position) -> bool:
        """Whether old requests were deleted since an earlier position."""
        return any(
            writer.prunes and (number not in earlier.writers or earlier.writers[number].batch < writer.batch)
            for number, writer in self.writers.items()
        )


def _query(dialect_name: str) -> Select[Any]:
    """Returns the SELECT of the writers, with the newest number and the time."""
    return select(counters.c.value.label("newest"), now_column(dialect_name), writers).select_from(
        counters.outerjoin(writers, writers.c.number.is_not(None))
    )


_READ = KeyedRead(_query, counters.c.name)


def read_position(connection: Connection) -> Position:
    """Returns the position now.

    Args:
        connection: A connection on which no transaction is open.
    """
    rows = _READ.read(connection, [COUNTER])
    if not rows:  # Nobody has ever written.
        return Position({}, newest=0, read_at=database_now(connection))
    return Position(
        {
            row.number: WriterPosition(
                row.batch,
                crc32(row.writer_id.encode()) & 0xFFFF,
                row.updated_at,
                row.writer_id.startswith(PRUNE_PREFIX),
            )
            for row in rows
            if row.number is not None
        },
        newest=rows[0].newest,
        read_at=now_of(rows[0].now),
    )
