"""Which limits requests wait for. A list of requests costs as many statements as one request."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from spincycle_server.database.chunks import in_chunks
from spincycle_server.store.limit_fronts import Front, fronts_of_keys
from spincycle_server.store.limit_holders import named_owners, paths_of
from spincycle_server.store.limit_rows import Owner
from spincycle_server.store.limit_wait_texts import wait_text
from spincycle_server.store.schema import limit_claims, limits

_WAITING = (
    select(
        limit_claims.c.limit_id,
        limit_claims.c.ticket,
        limit_claims.c.request_id,
        limit_claims.c.sequence_id,
        limit_claims.c.claimed_at,
        limits.c.key,
        limits.c.max,
        # All that ask in one transaction have the same time.
        func.first_value(limit_claims.c.sequence_id)
        .over(
            partition_by=limit_claims.c.request_id,
            order_by=(limit_claims.c.claimed_at, limits.c.key, limit_claims.c.ticket),
        )
        .label("oldest"),
    )
    .select_from(limit_claims)
    .join(limits, limits.c.limit_id == limit_claims.c.limit_id)
    .where(limit_claims.c.held_at.is_(None))
)
"""The claims that wait, each with the sequence of its request that has waited for the longest time."""


def waits_of(connection: Connection, request_ids: Collection[str]) -> dict[str, str]:
    """Returns which limit each of some requests waits for, as a sentence, for those that wait.

    Of the sequences of a request, it is the one that has waited for the longest time. Of those that began to
    wait at the same time for the same key, it is the first in the order of the key.
    """
    claims = [one for some in in_chunks(sorted(request_ids)) for one in _waiting_claims(connection, some)]
    fronts = fronts_of_keys(connection, {one.limit_id: one.max for one in claims})
    waits: dict[str, tuple[Any, Front | None]] = {}
    for one in claims:
        front = fronts.get(one.limit_id)
        # One that is among the first waits for another key.
        if one.request_id not in waits and (front is None or one.ticket > front.last_ticket):
            waits[one.request_id] = one, front
    owners = {Owner(one.request_id, one.sequence_id) for one, _ in waits.values()}
    for request_id, (_, front) in waits.items():
        owners.update(named_owners(request_id, [front.named] if front else ()))
    paths = paths_of(connection, owners)
    return {request_id: wait_text(one, front, paths) for request_id, (one, front) in waits.items()}


def _waiting_claims(connection: Connection, request_ids: Sequence[str]) -> Sequence[Any]:
    """Returns the claims that wait, of requests or of their oldest waiting sequences, by their keys."""
    waiting = _WAITING.where(limit_claims.c.request_id.in_(request_ids)).subquery()
    query = select(waiting).where(waiting.c.sequence_id == waiting.c.oldest).order_by(waiting.c.key)
    return connection.execute(query).all()
