"""Pages of the keys of limits, with those that hold them and those that wait for them.

A page costs as many statements as one key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import and_, func, or_, select
from sqlalchemy.engine import Connection

from spincycle_grpc.v1.limit_pb2 import HeldLimit
from spincycle_server.capabilities import content_id
from spincycle_server.store.limit_holders import asked_path
from spincycle_server.store.rows import set_microseconds
from spincycle_server.store.schema import limit_claims, limits, requests, sequence_claims

MAX_SHOWN = 100
"""The maximum number of claims that are shown of one key."""

_PLACED = select(
    limit_claims,
    func.row_number()
    .over(partition_by=limit_claims.c.limit_id, order_by=limit_claims.c.ticket)
    .label("place"),
    func.row_number()
    .over(partition_by=(limit_claims.c.limit_id, limit_claims.c.request_id), order_by=limit_claims.c.ticket)
    .label("own_place"),
)
"""The claims of keys, each with its place in the order of its key, and among those of its request there."""


class WantedKeys(NamedTuple):
    """Which keys to read.

    Attributes:
        key: Only this key; "" for all.
        request_id: Only keys that this request or its sequences hold or wait for; "" for all.
    """

    key: str
    request_id: str


class LimitsPage(NamedTuple):
    """A page of keys.

    Attributes:
        limits: The keys that the caller may see.
        last_id: The id of the last key that was read; "" if these are all.
    """

    limits: Sequence[HeldLimit]
    last_id: str


def limits_page(
    connection: Connection, wanted: WantedKeys, behind: str, size: int, shows: Callable[[str], bool]
) -> LimitsPage:
    """Returns a page of keys, see `HeldLimits.page`."""
    query = select(limits).where(limits.c.limit_id > behind).order_by(limits.c.limit_id).limit(size + 1)
    if wanted.key:
        query = query.where(limits.c.limit_id == content_id(wanted.key.encode()))
    if wanted.request_id:
        if not _is_shown(connection, wanted.request_id, shows):
            return LimitsPage((), "")
        theirs = select(limit_claims.c.limit_id).where(limit_claims.c.request_id == wanted.request_id)
        query = query.where(limits.c.limit_id.in_(theirs))
    rows = connection.execute(query).all()
    shown = _held_limits(connection, rows[:size], shows, wanted.request_id)
    return LimitsPage(
        [one for one in shown if one.claims], rows[size - 1].limit_id if len(rows) > size else ""
    )


def _is_shown(connection: Connection, request_id: str, shows: Callable[[str], bool]) -> bool:
    found = connection.scalar(select(requests.c.type).where(requests.c.request_id == request_id))
    return found is not None and shows(found)


def _held_limits(
    connection: Connection, rows: Sequence[Any], shows: Callable[[str], bool], request_id: str
) -> Sequence[HeldLimit]:
    """Returns the keys of some rows, with the claims that the caller may see."""
    ids = [row.limit_id for row in rows]
    holding = _holding(connection, ids)
    found = {}
    for row in rows:
        holds = holding.get(row.limit_id, 0)
        found[row.limit_id] = HeldLimit(key=row.key, max=row.max, holding=holds, waiting=row.claims - holds)
    for one in _shown_claims(connection, ids, request_id):
        if shows(one.type):
            claim = found[one.limit_id].claims.add(
                request_id=one.request_id,
                request_type=one.type,
                user=one.user or "",
                state=one.state,
                holds=one.held_at is not None,
                sequence_id=one.sequence_id,
                sequence_path=asked_path(one.body),
            )
            set_microseconds(claim.since, one.claimed_at if one.held_at is None else one.held_at)
    return [*found.values()]


def _holding(connection: Connection, limit_ids: Sequence[str]) -> dict[str, int]:
    """Returns how many hold each of some keys that anybody holds."""
    query = (
        select(limit_claims.c.limit_id, func.count().label("holding"))
        .where(limit_claims.c.limit_id.in_(limit_ids), limit_claims.c.held_at.is_not(None))
        .group_by(limit_claims.c.limit_id)
    )
    return {row.limit_id: row.holding for row in connection.execute(query)}


def _shown_claims(connection: Connection, limit_ids: Sequence[str], request_id: str) -> Sequence[Any]:
    """Returns the first claims of some keys, and those of a request, with their requests, in order."""
    placed = _PLACED.where(limit_claims.c.limit_id.in_(limit_ids)).subquery()
    sequence = and_(
        placed.c.sequence_id != "",
        sequence_claims.c.request_id == placed.c.request_id,
        sequence_claims.c.sequence_id == placed.c.sequence_id,
    )
    is_own = and_(placed.c.request_id == request_id, placed.c.own_place <= MAX_SHOWN)
    query = (
        select(
            placed.c.limit_id,
            placed.c.request_id,
            placed.c.claimed_at,
            placed.c.held_at,
            placed.c.sequence_id,
            sequence_claims.c.body,
            requests.c.type,
            requests.c.user,
            requests.c.state,
        )
        .select_from(placed.outerjoin(sequence_claims, sequence))
        .join(requests, requests.c.request_id == placed.c.request_id)
        .where(or_(placed.c.place <= MAX_SHOWN, is_own))
        .order_by(placed.c.limit_id, placed.c.place)
    )
    return connection.execute(query).all()
