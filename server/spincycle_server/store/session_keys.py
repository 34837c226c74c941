"""The keys that seal the sessions of browsers: reads them, and stores new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Connection

from spincycle_server.database.clock import database_now
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.schema import session_keys
from spincycle_server.store.write import Write

KEPT = 90 * 86_400_000_000
"""Microseconds for which a key is kept: it seals for a month, and sessions last for a month at most."""


class StoredSessionKey(NamedTuple):
    """A stored key.

    Attributes:
        key_id: Its id.
        key: The key.
        age: Seconds since the key was stored. The database's clock counts.
    """

    key_id: bytes
    key: bytes
    age: float


@dataclass(slots=True)
class AddSessionKey(Write):
    """Stores a key, and deletes those that are too old. Result: None."""

    order: ClassVar[int] = 10
    key_id: bytes
    key: bytes

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[AddSessionKey]) -> Sequence[None]:
        """Inserts the rows in one statement."""
        now = database_now(transaction.connection)
        transaction.execute(delete(session_keys).where(session_keys.c.created_at < now - KEPT))
        rows = [{"key_id": one.key_id, "key": one.key, "created_at": now} for one in writes]
        transaction.execute(insert(session_keys), rows)
        return [None] * len(writes)


def read_session_keys(connection: Connection) -> list[StoredSessionKey]:
    """Returns the keys, the newest first, and of equally new ones in the order of their ids."""
    now = database_now(connection)
    query = select(session_keys).order_by(session_keys.c.created_at.desc(), session_keys.c.key_id)
    return [
        StoredSessionKey(bytes(row.key_id), bytes(row.key), (now - row.created_at) / 1e6)
        for row in connection.execute(query)
    ]
