"""The rows of limits and of the claims to their keys, which a transaction reads and writes under locks.

A claim is the right of a request to hold a key, or its place among those that wait. Whoever adds or removes a
claim of a key, or lets it hold the key, has locked the row of the key.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Table, and_, bindparam, delete, insert, select, tuple_, update
from sqlalchemy.dialects import mysql, postgresql, sqlite

from spincycle_grpc.state import FINAL_STATES
from spincycle_server.database.chunks import in_chunks
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.schema import limit_claims, limits, requests, sequence_claims

OWNED_COLUMNS = (
    limit_claims.c.limit_id,
    limit_claims.c.ticket,
    limit_claims.c.request_id,
    limit_claims.c.sequence_id,
    limit_claims.c.held_at,
)
"""The columns that say who has a claim, and since when it holds its key."""

_COLUMNS = (*OWNED_COLUMNS, limit_claims.c.requirement)

_UPDATE = (
    update(limits)
    .where(limits.c.limit_id == bindparam("id"))
    .values(
        max=bindparam("new_max"), last_ticket=bindparam("new_last_ticket"), claims=bindparam("new_claims")
    )
)

_HOLD = (
    update(limit_claims)
    .where(limit_claims.c.limit_id == bindparam("of_limit"), limit_claims.c.ticket == bindparam("of_ticket"))
    .values(held_at=bindparam("since"))
)

_START = (
    update(requests)
    .where(requests.c.request_id == bindparam("of_request"))
    .values(
        requirement=bindparam("new_requirement"),
        change_stamp=bindparam("stamp"),
        # In old MySQL tables, the first TIMESTAMP column changes with each update of the row.
        created_at=requests.c.created_at,
    )
)


@dataclass(slots=True)
class LimitRow:
    """The locked row of a key.

    Attributes:
        limit_id: The id of the key.
        max: How many may hold it.
        last_ticket: The newest ticket.
        claims: How many hold it or wait for it.
    """

    limit_id: str
    max: int
    last_ticket: int
    claims: int


class ClaimRow(NamedTuple):
    """A claim, see the table `limit_claims`."""

    limit_id: str
    ticket: int
    request_id: str
    sequence_id: str
    held_at: int | None
    requirement: str

    @property
    def owner(self) -> Owner:
        """Who has the claim."""
        return Owner(self.request_id, self.sequence_id)


class Owner(NamedTuple):
    """Who has claims: a request, or a sequence of it. It gets all its keys at once.

    Attributes:
        request_id: The request.
        sequence_id: The sequence; "" for the whole request.
    """

    request_id: str
    sequence_id: str = ""


def add_limits(transaction: Transaction, rows: Iterable[tuple[str, str, int]]) -> None:
    """Inserts the rows of keys that have none, and locks all of them, in their order.

    An INSERT that waits for another transaction, and then finds its row or finds it deleted, goes on.

    Args:
        transaction: The open transaction.
        rows: The id, the key and the maximum of each.
    """
    dialect = transaction.dialect_name
    if dialect == "mysql":
        inserted: Any = mysql.insert(limits)
        statement = inserted.on_duplicate_key_update(limit_id=limits.c.limit_id)
    elif dialect == "postgresql":
        inserted = postgresql.insert(limits)
        statement = inserted.on_conflict_do_update(
            index_elements=[limits.c.limit_id], set_={"limit_id": inserted.excluded.limit_id}
        )
    else:
        statement = sqlite.insert(limits).on_conflict_do_nothing()
    transaction.execute(
        statement,
        [
            {"limit_id": limit_id, "key": key, "max": most, "last_ticket": 0, "claims": 0}
            for limit_id, key, most in sorted(rows)
        ],
    )


def lock_limits(
    transaction: Transaction, limit_ids: Iterable[str], *, waits: bool = True
) -> dict[str, LimitRow]:
    """Locks the rows of keys that exist, in their order, and returns them by id.

    Args:
        transaction: The open transaction.
        limit_ids: The keys.
        waits: Whether to wait for rows that others have locked. Without it, PostgreSQL raises a conflict at
            once. The others find deadlocks as soon as they wait, so they may always wait.
    """
    query = (
        select(limits.c.limit_id, limits.c.max, limits.c.last_ticket, limits.c.claims)
        .where(limits.c.limit_id.in_(sorted(limit_ids)))
        .order_by(limits.c.limit_id)
        .with_for_update(nowait=not waits and transaction.dialect_name == "postgresql")
    )
    return {row.limit_id: LimitRow(*_values(row)) for row in transaction.execute(query)}


def save_limits(transaction: Transaction, rows: Iterable[LimitRow]) -> None:
    """Writes rows back."""
    values = [
        {
            "id": row.limit_id,
            "new_max": row.max,
            "new_last_ticket": row.last_ticket,
            "new_claims": row.claims,
        }
        for row in sorted(rows, key=lambda row: row.limit_id)
    ]
    if values:
        transaction.execute(_UPDATE, values)


def delete_limits(transaction: Transaction, limit_ids: Iterable[str]) -> None:
    """Deletes the rows of keys that nobody holds or waits for."""
    transaction.execute(delete(limits).where(limits.c.limit_id.in_(sorted(limit_ids))))


def add_claims(transaction: Transaction, rows: Sequence[dict[str, Any]]) -> None:
    """Inserts claims."""
    transaction.execute(insert(limit_claims), rows)


def claims_of(transaction: Transaction, request_ids: Collection[str]) -> list[ClaimRow]:
    """Returns the claims of some requests."""
    found: list[ClaimRow] = []
    for some in in_chunks(sorted(request_ids)):
        query = select(*_COLUMNS).where(limit_claims.c.request_id.in_(some))
        found += [ClaimRow(*_values(row)) for row in transaction.execute(query)]
    return found


def claims_of_owners(transaction: Transaction, owners: Collection[Owner]) -> list[ClaimRow]:
    """Returns the claims of some owners."""
    found: list[ClaimRow] = []
    for some in in_chunks(sorted(owners)):
        query = select(*_COLUMNS).where(is_owned(limit_claims, some))
        found += [ClaimRow(*_values(row)) for row in transaction.execute(query)]
    return found


def first_claims(transaction: Transaction, limit_id: str, most: int) -> list[ClaimRow]:
    """Returns the first `most` claims of a key, in order. The first `max` hold the key, or may hold it."""
    query = first_claims_query(limit_id, most, _COLUMNS)
    return [ClaimRow(*_values(one)) for one in transaction.execute(query)]


def first_claims_query(limit_id: str, most: int, columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """Returns a query for columns of the first `most` claims of a key, in order.

    The primary key has their order, so no others are read.
    """
    return (
        select(*columns)
        .where(limit_claims.c.limit_id == limit_id)
        .order_by(limit_claims.c.ticket)
        .limit(most)
    )


def ended_requests(transaction: Transaction, limit_id: str, most: int) -> set[str]:
    """Returns the requests that have ended, or do not exist, among the first `most` claims of a key.

    They were ended by an original, a server of an earlier release or a person, who do not know limits.
    """
    claimed = {one.request_id for one in first_claims(transaction, limit_id, most)}
    query = select(requests.c.request_id).where(
        requests.c.request_id.in_(sorted(claimed)), requests.c.state.not_in(FINAL_STATES)
    )
    return claimed - set(transaction.execute(query).scalars())


def claims_of_keys(transaction: Transaction, limit_ids: Collection[str]) -> list[ClaimRow]:
    """Returns all claims of some keys, each key's in order."""
    found: list[ClaimRow] = []
    for some in in_chunks(sorted(limit_ids)):
        query = (
            select(*_COLUMNS)
            .where(limit_claims.c.limit_id.in_(some))
            .order_by(limit_claims.c.limit_id, limit_claims.c.ticket)
        )
        found += [ClaimRow(*_values(row)) for row in transaction.execute(query)]
    return found


def claims_before(transaction: Transaction, limit_id: str, ticket: int) -> list[str]:
    """Returns the requests with claims of a key before a ticket, in order."""
    query = (
        select(limit_claims.c.request_id)
        .where(limit_claims.c.limit_id == limit_id, limit_claims.c.ticket < ticket)
        .order_by(limit_claims.c.ticket)
    )
    return list(transaction.execute(query).scalars())


def remove_claims(transaction: Transaction, claims: Iterable[ClaimRow]) -> None:
    """Deletes claims."""
    key = tuple_(limit_claims.c.limit_id, limit_claims.c.ticket)
    for some in in_chunks(sorted((one.limit_id, one.ticket) for one in claims)):
        # With the second condition alone, PostgreSQL reads more.
        transaction.execute(
            delete(limit_claims).where(limit_claims.c.limit_id.in_({one for one, _ in some}), key.in_(some))
        )


def forget_sequences(
    transaction: Transaction, request_ids: Collection[str], owners: Collection[Owner]
) -> None:
    """Deletes what sequences have asked: all those of some requests, and single ones."""
    for some in in_chunks(sorted(request_ids)):
        transaction.execute(delete(sequence_claims).where(sequence_claims.c.request_id.in_(some)))
    for owned in in_chunks(sorted(owners)):
        transaction.execute(delete(sequence_claims).where(is_owned(sequence_claims, owned)))


def is_owned(table: Table, owners: Collection[Owner]) -> ColumnElement[bool]:
    """Returns the condition for the rows of some owners in a table with the columns of `Owner`."""
    key = tuple_(table.c.request_id, table.c.sequence_id)
    # With the second condition alone, PostgreSQL reads more.
    return and_(
        table.c.request_id.in_({one.request_id for one in owners}), key.in_([tuple(one) for one in owners])
    )


def hold(transaction: Transaction, claims: Sequence[ClaimRow], now: int) -> None:
    """Lets claims hold their keys, and requests among their owners wait for a runner."""
    ordered = sorted(claims)
    transaction.execute(
        _HOLD, [{"of_limit": one.limit_id, "of_ticket": one.ticket, "since": now} for one in ordered]
    )
    set_requirements(transaction, ordered)


def set_requirements(transaction: Transaction, claims: Iterable[ClaimRow]) -> None:
    """Gives requests, which have waited for keys, the requirements of their claims."""
    requirements = {one.request_id: one.requirement for one in claims if not one.sequence_id}
    if requirements:
        transaction.execute(
            _START,
            [
                {"of_request": one, "new_requirement": requirements[one], "stamp": transaction.stamp}
                for one in sorted(requirements)
            ],
        )


def _values(row: Any) -> tuple[Any, ...]:
    return tuple(row)
