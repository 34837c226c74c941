"""Pages of the keys of limits, with those that hold them and those that wait for them.

A page costs as many statements as one key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, func, select, union_all
from sqlalchemy.engine import Connection

from spincycle_grpc.v1.limit_pb2 import HeldLimit
from spincycle_server.capabilities import content_id
from spincycle_server.store.limit_holders import asked_path
from spincycle_server.store.limit_rows import first_claims_query
from spincycle_server.store.rows import set_microseconds
from spincycle_server.store.schema import limit_claims, limits, requests, sequence_claims

MAX_SHOWN = 100
"""The maximum number of claims that are shown of one key."""

_COLUMNS = (
    limit_claims.c.limit_id,
    limit_claims.c.ticket,
    limit_claims.c.request_id,
    limit_claims.c.sequence_id,
    limit_claims.c.claimed_at,
    limit_claims.c.held_at,
)


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
    counts = _counts(connection, ids)
    found = {}
    for row in rows:
        holding, waiting = counts.get(row.limit_id, (0, 0))
        found[row.limit_id] = HeldLimit(key=row.key, max=row.max, holding=holding, waiting=waiting)
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
                place=one.place,
            )
            set_microseconds(claim.since, one.claimed_at if one.held_at is None else one.held_at)
    return [*found.values()]


def _counts(connection: Connection, limit_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Returns how many hold each of some keys, and how many wait for it.

    Both are from one statement, not from `limits.claims`: claims may come and go between two statements.
    """
    query = (
        select(
            limit_claims.c.limit_id,
            func.count(limit_claims.c.held_at).label("holding"),
            func.count().label("claims"),
        )
        .where(limit_claims.c.limit_id.in_(limit_ids))
        .group_by(limit_claims.c.limit_id)
    )
    return {row.limit_id: (row.holding, row.claims - row.holding) for row in connection.execute(query)}


def _shown_claims(connection: Connection, limit_ids: Sequence[str], request_id: str) -> Sequence[Any]:
    """Returns the first claims of some keys, and those of a request, with their requests, in order."""
    if not limit_ids:
        return ()
    queries = [_first_claims(limit_id) for limit_id in limit_ids]
    if request_id:
        queries += [_later_claims(limit_id, request_id) for limit_id in limit_ids]
    claims = union_all(*queries).subquery()
    sequence = and_(
        claims.c.sequence_id != "",
        sequence_claims.c.request_id == claims.c.request_id,
        sequence_claims.c.sequence_id == claims.c.sequence_id,
    )
    query = (
        select(claims, sequence_claims.c.body, requests.c.type, requests.c.user, requests.c.state)
        .select_from(claims)
        .outerjoin(sequence_claims, sequence)
        .join(requests, requests.c.request_id == claims.c.request_id)
        .order_by(claims.c.limit_id, claims.c.place)
    )
    return connection.execute(query).all()


def _first_claims(limit_id: str) -> Select[Any]:
    """Selects the first claims of a key."""
    first = first_claims_query(limit_id, MAX_SHOWN, _COLUMNS).subquery()
    return select(first, func.row_number().over(order_by=first.c.ticket).label("place"))


def _later_claims(limit_id: str, request_id: str) -> Select[Any]:
    """Selects the claims of a request that are behind the first ones of a key. It counts all of the key."""
    placed = (
        select(
            limit_claims.c.ticket,
            func.row_number().over(order_by=limit_claims.c.ticket).label("place"),
        )
        .where(limit_claims.c.limit_id == limit_id)
        .subquery()
    )
    later = (
        select(*_COLUMNS, placed.c.place)
        .join(placed, placed.c.ticket == limit_claims.c.ticket)
        .where(
            limit_claims.c.limit_id == limit_id,
            limit_claims.c.request_id == request_id,
            placed.c.place > MAX_SHOWN,
        )
        .order_by(limit_claims.c.ticket)
        .limit(MAX_SHOWN)
        .subquery()
    )
    return select(later)
