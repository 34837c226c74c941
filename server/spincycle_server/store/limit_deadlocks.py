"""Finds sequences that would wait for keys for ever, because those who hold the keys wait for them.

A request, or a sequence, holds its keys until all sequences in it have ended. So it waits for what these wait
for. A deadlock begins when a sequence begins to wait: a request that waits for its keys holds nothing. That
sequence is looked at, in the transaction that adds its claim, under a lock that all such transactions take.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.dialects import mysql, postgresql

from spincycle_grpc.state import FINAL_STATES
from spincycle_server.database.chunks import in_chunks
from spincycle_server.database.transaction import Transaction
from spincycle_server.store import limit_rows
from spincycle_server.store.limit_rows import ClaimRow, Owner
from spincycle_server.store.schema import limits, requests, sequence_claims
from spincycle_server.store.sequence_claim_rows import claims_of_sequences

MAX_CLAIMS = 20_000
"""How many claims are looked at for one sequence."""

_GUARD = {
    "request_id": "",
    "sequence_id": "",
    "epoch": 0,
    "number": 0,
    "body": b"",
    "reason": "",
    "error": "",
}


class TooManyClaimsError(Exception):
    """More than MAX_CLAIMS claims would have to be looked at."""


@dataclass(slots=True)
class Waits:
    """Who holds keys and waits for keys.

    Attributes:
        claims: The claims of each key, in its order.
        most: How many may hold each key.
        inside: The sequences that wait for keys in each owner. It ends when these have ended.
        ending: The requests that are being stopped, and so end whatever they wait for.
    """

    claims: dict[str, Sequence[ClaimRow]] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    inside: defaultdict[Owner, set[Owner]] = field(default_factory=lambda: defaultdict(set))
    ending: set[str] = field(default_factory=set)

    def never_end(self, known: Collection[Owner]) -> set[Owner]:
        """Returns the owners that wait for ever: for each other, directly or not.

        Args:
            known: The owners that wait although their request may be being stopped.
        """
        owners = {one.owner for claims in self.claims.values() for one in claims}
        stuck = {one for one in owners if one in known or one.request_id not in self.ending}
        while ending := self._next_to_end(stuck):
            stuck -= ending
        return stuck

    def _next_to_end(self, stuck: Collection[Owner]) -> set[Owner]:
        """Returns the owners of some that end although the others do not."""
        kept: set[Owner] = set()
        for limit_id, claims in self.claims.items():
            before = 0
            for one in claims:
                if one.held_at is None and before >= self.most[limit_id]:
                    kept.add(one.owner)
                before += one.owner in stuck
        return {one for one in stuck if one not in kept and self.inside[one].isdisjoint(stuck)}


def lock_waits(transaction: Transaction) -> None:
    """Lets the transaction see all sequences that wait, until it ends: no other one begins to."""
    dialect = transaction.dialect_name
    if dialect == "mysql":
        inserted: Any = mysql.insert(sequence_claims)
        statement = inserted.on_duplicate_key_update(number=sequence_claims.c.number)
    elif dialect == "postgresql":
        inserted = postgresql.insert(sequence_claims)
        statement = inserted.on_conflict_do_update(
            index_elements=["request_id", "sequence_id"], set_={"number": inserted.excluded.number}
        )
    else:  # SQLite has one writer at a time.
        return
    transaction.execute(statement, _GUARD)


def waits_for_ever(
    transaction: Transaction, owner: Owner, around: Sequence[str], limit_ids: Collection[str]
) -> bool:
    """Returns whether a sequence that has begun to wait closes a circle.

    Args:
        transaction: The open transaction, which has stored the claims of the sequence and has called
            `lock_waits`.
        owner: The sequence.
        around: The ids of the sequences with keys around it.
        limit_ids: The ids of its keys.

    Raises:
        TooManyClaimsError: There are too many claims to look at.
    """
    waits = Waits()
    outer = [Owner(owner.request_id), *(Owner(owner.request_id, one) for one in around)]
    for one in outer:
        waits.inside[one].add(owner)
    known: set[str] = set()
    new_keys = set(limit_ids)
    while new_keys:
        _add_claims(transaction, waits, new_keys)
        found = {one.request_id for limit_id in new_keys for one in waits.claims[limit_id]} - known
        known |= found
        new_keys = _add_waiting(transaction, waits, found) - waits.claims.keys()
    return owner in waits.never_end([owner, *outer])


def _add_claims(transaction: Transaction, waits: Waits, limit_ids: Collection[str]) -> None:
    """Adds all claims of some keys."""
    by_key: dict[str, list[ClaimRow]] = {limit_id: [] for limit_id in limit_ids}
    for one in limit_rows.claims_of_keys(transaction, limit_ids):
        by_key[one.limit_id].append(one)
    waits.claims |= by_key
    if sum(map(len, waits.claims.values())) > MAX_CLAIMS:
        raise TooManyClaimsError
    for some in in_chunks(sorted(limit_ids)):
        query = select(limits.c.limit_id, limits.c.max).where(limits.c.limit_id.in_(some))
        waits.most |= {row.limit_id: row.max for row in transaction.execute(query)}


def _add_waiting(transaction: Transaction, waits: Waits, request_ids: Collection[str]) -> set[str]:
    """Adds what waits in some requests, and the requests that wait. Returns the ids of the keys for that."""
    waits.ending |= _ending(transaction, request_ids)
    claims = limit_rows.claims_of(transaction, set(request_ids) - waits.ending)
    waiting = [one for one in claims if one.held_at is None]
    sequences = {one.owner for one in waiting if one.sequence_id}
    for owner, asked in claims_of_sequences(transaction.connection, sequences).items():
        waits.inside[Owner(owner.request_id)].add(owner)
        for outer in asked.change.around:
            waits.inside[Owner(owner.request_id, outer)].add(owner)
    return {one.limit_id for one in waiting}


def _ending(transaction: Transaction, request_ids: Collection[str]) -> set[str]:
    """Returns the requests of some that are being stopped or have ended."""
    found: set[str] = set()
    is_ending = or_(requests.c.stop_requested.is_(True), requests.c.state.in_(FINAL_STATES))
    for some in in_chunks(sorted(request_ids)):
        query = select(requests.c.request_id).where(requests.c.request_id.in_(some), is_ending)
        found.update(transaction.execute(query).scalars())
    return found
