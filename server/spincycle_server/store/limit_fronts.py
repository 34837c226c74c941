"""Who keeps those who wait from the keys of limits: the first claims of each key, counted by the database.

Up to 1,000 may hold a key, and a list of requests may wait for many keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, case, func, select, union_all
from sqlalchemy.engine import Connection

from spincycle_server.database.chunks import in_chunks
from spincycle_server.store.limit_holders import KEYS_AT_ONCE, first_claims
from spincycle_server.store.limit_rows import Owner
from spincycle_server.store.schema import limit_claims


class Front(NamedTuple):
    """The claims of a key that hold it or may hold it, which is at least one.

    Attributes:
        last_ticket: The place of the last of them in the order of the key.
        named: Who is named of them: the first holder, or else the first one.
        requests: How many requests hold the key.
        sequences: How many sequences hold it.
        only_request: The request that has all holders; "" if they are of several requests, or none.
    """

    last_ticket: int
    named: Owner
    requests: int
    sequences: int
    only_request: str


def fronts_of_keys(connection: Connection, most: Mapping[str, int]) -> dict[str, Front]:
    """Returns the fronts of those keys that have claims.

    Args:
        connection: An open connection.
        most: How many may hold each key, by its id.
    """
    found: dict[str, Front] = {}
    for some in in_chunks(sorted(most.items()), KEYS_AT_ONCE):
        fronts = union_all(*(_counted(limit_id, count) for limit_id, count in some)).subquery()
        named = and_(
            limit_claims.c.limit_id == fronts.c.limit_id, limit_claims.c.ticket == fronts.c.named_ticket
        )
        query = select(fronts, limit_claims.c.request_id, limit_claims.c.sequence_id).join(
            limit_claims, named
        )
        for row in connection.execute(query):
            found[row.limit_id] = Front(
                last_ticket=row.last_ticket,
                named=Owner(row.request_id, row.sequence_id),
                requests=row.holders - row.sequences,
                sequences=row.sequences,
                only_request=row.first_request if row.first_request == row.last_request else "",
            )
    return found


def _counted(limit_id: str, most: int) -> Select[Any]:
    """Selects what the first claims of a key are; nulls if it has none."""
    first = first_claims(limit_id, most).subquery()
    holds = first.c.held_at.is_not(None)
    first_holder = func.min(case((holds, first.c.ticket)))
    holder = case((holds, first.c.request_id))
    return select(
        func.max(first.c.limit_id).label("limit_id"),
        func.max(first.c.ticket).label("last_ticket"),
        func.coalesce(first_holder, func.min(first.c.ticket)).label("named_ticket"),
        func.count(first.c.held_at).label("holders"),
        func.count(case((and_(holds, first.c.sequence_id != ""), 1))).label("sequences"),
        func.coalesce(func.min(holder), "").label("first_request"),
        func.coalesce(func.max(holder), "").label("last_request"),
    )
