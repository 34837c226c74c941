"""Idempotency keys: which request was created with a key, for as long as the key is remembered.

The row of a key is written in the transaction that creates the request, so that neither exists without
the other. Only a hash of the key is stored.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from sqlalchemy import Insert, Select, bindparam, delete, literal_column, select
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import ConflictError, SpinCycleError
from spincycle_server.database.clock import database_now, now_column, now_of, now_or_parameter
from spincycle_server.database.dialects import insert_ignoring
from spincycle_server.database.keyed_read import KeyedRead
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store.errors import CreatedBeforeError
from spincycle_server.store.schema import idempotency_keys
from spincycle_server.store.write import Write

KEPT = 86_400_000_000
"""Microseconds for which a key is remembered."""

_KEY = idempotency_keys.c.key_hash


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Hashes of a caller's key and of the request that it was used for."""

    key_hash: bytes
    body_hash: bytes

    @classmethod
    def of(cls, caller: str, key: str, body: bytes) -> IdempotencyKey:
        """Returns the key of a caller. The same key of another caller is a different key.

        Args:
            caller: The name of the caller; "" if callers have no names.
            key: The key as the caller sent it.
            body: The request that the caller asks for, in a canonical form.
        """
        scope = hashlib.sha256(caller.encode()).digest()
        return cls(hashlib.sha256(scope + key.encode()).digest(), hashlib.sha256(body).digest())


class HeldKey(NamedTuple):
    """A key that was used.

    Attributes:
        request_id: The request that was created with it.
        body_hash: The hash of what was asked for.
        is_expired: Whether it counts as unused.
    """

    request_id: str
    body_hash: bytes
    is_expired: bool

    def refusal(self, key: IdempotencyKey) -> ConflictError:
        """Returns the error for another request with the key."""
        if self.body_hash == key.body_hash:
            return CreatedBeforeError(
                "the request was created before",
                reason="CREATED_BEFORE",
                request_id=self.request_id,
            )
        return ConflictError(
            "the idempotency key was used for another request: give each request a key of its own",
            reason="IDEMPOTENCY_KEY_REUSED",
        )

    def request_of(self, key: IdempotencyKey) -> str | None:
        """Returns the id of the request that was created with a key; None if the key has expired.

        Raises:
            ConflictError: The key was used for a different request.
        """
        if self.is_expired:
            return None
        refusal = self.refusal(key)
        if isinstance(refusal, CreatedBeforeError):
            return refusal.request_id
        raise refusal


def _query(dialect_name: str) -> Select[Any]:
    """Returns the SELECT of keys, with the time of the database."""
    return select(idempotency_keys, now_column(dialect_name))


_READ = KeyedRead(_query, _KEY)


def _insert(dialect_name: str) -> Insert:
    """Returns the INSERT of a key that has no row. `now` is the time of this machine, for SQLite."""
    statement: Insert = insert_ignoring(dialect_name, idempotency_keys)
    return statement.values(
        key_hash=bindparam("key_hash"),
        body_hash=bindparam("body_hash"),
        request_id=bindparam("request_id"),
        expires_at=now_or_parameter(dialect_name) + literal_column(str(KEPT)),
    )


_INSERT = RowStatement(_insert)


def _held(row: Mapping[str, Any]) -> HeldKey:
    return HeldKey(row["request_id"], row["body_hash"], row["expires_at"] <= now_of(row["now"]))


def held_keys(connection: Connection, hashes: Sequence[bytes]) -> dict[bytes, HeldKey]:
    """Returns the keys that were used, by hash. No transaction may be open on the connection."""
    return {row.key_hash: _held(row._asdict()) for row in _READ.read(connection, hashes)}


def claim_keys(
    transaction: Transaction, wanted: Sequence[tuple[IdempotencyKey, str]]
) -> list[SpinCycleError | None]:
    """Claims keys for requests that are about to be created in a transaction.

    Waits for other transactions that claim the same keys. An expired key counts as unused.

    Args:
        transaction: Is open at READ COMMITTED, or is the only writer.
        wanted: The keys with the ids of their requests.

    Returns:
        For each key, None if it is claimed, or why its request must not be created.
    """
    first: dict[bytes, tuple[IdempotencyKey, str]] = {}
    for key, request_id in wanted:
        first.setdefault(key.key_hash, (key, request_id))
    # All transactions claim keys in the same order, because otherwise they could deadlock.
    unclaimed = sorted(first)
    while unclaimed:
        now = time.time_ns() // 1000
        transaction.change(_INSERT, [_row(*first[key_hash], now) for key_hash in unclaimed])
        held = {row["key_hash"]: _held(row) for row in _READ.rows(transaction, sorted(first))}
        expired = [key_hash for key_hash, one in held.items() if one.is_expired]
        if expired:
            _forget(transaction, expired)
        # A key without a row was deleted by another process just now.
        unclaimed = sorted({*expired, *(first.keys() - held.keys())})
    return [
        None if held[key.key_hash].request_id == request_id else held[key.key_hash].refusal(key)
        for key, request_id in wanted
    ]


def _row(key: IdempotencyKey, request_id: str, now: int) -> dict[str, Any]:
    return {"key_hash": key.key_hash, "body_hash": key.body_hash, "request_id": request_id, "now": now}


def request_of_key(transaction: Transaction, key: IdempotencyKey) -> str | None:
    """Returns the id of the request that was created with a key; None if the key is unused.

    Raises:
        ConflictError: The key was used for a different request.
    """
    rows = _READ.rows(transaction, [key.key_hash])
    return _held(rows[0]).request_of(key) if rows else None


def _forget(transaction: Transaction, hashes: Collection[bytes]) -> None:
    """Deletes the given keys that have expired."""
    expired = idempotency_keys.c.expires_at <= database_now(transaction.connection)
    transaction.execute(delete(idempotency_keys).where(_KEY.in_(sorted(hashes)), expired))


def expired_keys(connection: Connection, limit: int) -> Sequence[bytes]:
    """Returns the hashes of expired keys, in the order in which they expired."""
    return connection.scalars(
        select(_KEY)
        .where(idempotency_keys.c.expires_at <= database_now(connection))
        .order_by(idempotency_keys.c.expires_at)
        .limit(limit)
    ).all()


@dataclass(slots=True)
class ForgetKeys(Write):
    """Deletes the given keys that have expired. Result: None."""

    order: ClassVar[int] = 9
    hashes: Sequence[bytes]

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[Any]) -> Sequence[None]:
        """Deletes the rows in one statement."""
        hashes = {key_hash for write in writes for key_hash in write.hashes}
        _forget(transaction, hashes)
        return [None] * len(writes)
