"""Idempotency keys: which request was created with a key, for as long as the key is remembered.

The row of a key is written in the transaction that creates the request, so that neither exists without
the other. Only a hash of the key is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import delete, select
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import ConflictError, SpinCycleError
from spincycle_server.database.clock import database_now, now_expression
from spincycle_server.database.dialects import insert_ignoring
from spincycle_server.database.transaction import Transaction
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


@dataclass(frozen=True, slots=True)
class _Held:
    request_id: str
    body_hash: bytes

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


def request_of_key(connection: Connection, key: IdempotencyKey) -> str | None:
    """Returns the id of the request that was created with a key; None if the key is unused.

    Raises:
        ConflictError: The key was used for a different request.
    """
    query = select(idempotency_keys.c.request_id, idempotency_keys.c.body_hash).where(
        idempotency_keys.c.key_hash == key.key_hash,
        idempotency_keys.c.expires_at > now_expression(connection),
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    refusal = _Held(row.request_id, row.body_hash).refusal(key)
    if isinstance(refusal, CreatedBeforeError):
        return refusal.request_id
    raise refusal


def claim_keys(
    connection: Connection, wanted: Sequence[tuple[IdempotencyKey, str]]
) -> list[SpinCycleError | None]:
    """Claims keys for requests that are about to be created in the open transaction.

    Waits for other transactions that claim the same keys. An expired key counts as unused.

    Args:
        connection: Has a transaction open at READ COMMITTED, or is the only writer.
        wanted: The keys with the ids of their requests.

    Returns:
        For each key, None if it is claimed, or why its request must not be created.
    """
    now = database_now(connection)
    first: dict[bytes, tuple[IdempotencyKey, str]] = {}
    for key, request_id in wanted:
        first.setdefault(key.key_hash, (key, request_id))
    # All transactions claim keys in the same order, because otherwise they could deadlock.
    unclaimed = sorted(first)
    while unclaimed:
        _insert(connection, [first[key_hash] for key_hash in unclaimed], now + KEPT)
        held, expired = _read(connection, first, now)
        if expired:
            _forget(connection, expired, now)
        # A key without a row was deleted by another process just now.
        unclaimed = sorted({*expired, *(first.keys() - held.keys())})
    return [
        None if held[key.key_hash].request_id == request_id else held[key.key_hash].refusal(key)
        for key, request_id in wanted
    ]


def _insert(connection: Connection, claims: Sequence[tuple[IdempotencyKey, str]], expires_at: int) -> None:
    """Inserts the rows of keys that have none."""
    connection.execute(
        insert_ignoring(connection.dialect.name, idempotency_keys),
        [
            {
                "key_hash": key.key_hash,
                "body_hash": key.body_hash,
                "request_id": request_id,
                "expires_at": expires_at,
            }
            for key, request_id in claims
        ],
    )


def _read(
    connection: Connection, hashes: Collection[bytes], now: int
) -> tuple[dict[bytes, _Held], list[bytes]]:
    """Returns the rows of keys by hash, and the hashes of those that have expired."""
    query = select(idempotency_keys).where(_KEY.in_(sorted(hashes)))
    rows = connection.execute(query).all()
    held = {row.key_hash: _Held(row.request_id, row.body_hash) for row in rows}
    return held, [row.key_hash for row in rows if row.expires_at <= now]


def _forget(connection: Connection, hashes: Collection[bytes], now: int) -> None:
    """Deletes the given keys that have expired."""
    expired = idempotency_keys.c.expires_at <= now
    connection.execute(delete(idempotency_keys).where(_KEY.in_(sorted(hashes)), expired))


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
        _forget(transaction.connection, hashes, database_now(transaction.connection))
        return [None] * len(writes)
