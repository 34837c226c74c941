"""Finds sequences that would wait for keys for ever, because those who hold the keys wait for them.

A request, or a sequence, holds its keys until all sequences in it have ended. So it waits for what these wait
for. A deadlock begins when a sequence begins to wait: a request that waits for its keys holds nothing. That
sequence is looked at, in the transaction that adds its claim, under a lock that all such transactions take.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import and_, case, or_, select
from sqlalchemy.dialects import mysql, postgresql

from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.limit_pb2 import WAIT_AFTER_STOP_ENDS, WAIT_AFTER_STOP_UNKNOWN
from spincycle_server.database.chunks import in_chunks
from spincycle_server.database.transaction import Transaction
from spincycle_server.store import limit_rows
from spincycle_server.store.limit_rows import ClaimRow, Owner
from spincycle_server.store.schema import limits, requests, sequence_claims
from spincycle_server.store.sequence_claim_rows import claims_of_sequences

MAX_CLAIMS = 20_000
"""How many claims are looked at for the sequences of a transaction."""

MAX_SEARCHES = 25
"""How many times these claims are looked at, to find which of the sequences close a circle."""

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


class Newcomer(NamedTuple):
    """A sequence that has begun to wait.

    Attributes:
        owner: The sequence.
        around: The ids of the sequences with keys around it.
        limit_ids: The ids of its keys.
    """

    owner: Owner
    around: Sequence[str]
    limit_ids: Collection[str]

    @property
    def outer(self) -> list[Owner]:
        """The owners that end after it: its request, and the sequences with keys around it."""
        request_id = self.owner.request_id
        return [Owner(request_id), *(Owner(request_id, one) for one in self.around)]

    def wants_same(self, other: Newcomer) -> bool:
        """Whether it waits for the same keys as another newcomer, within the same owners."""
        return set(self.outer) == set(other.outer) and set(self.limit_ids) == set(other.limit_ids)


class EndlessWait(NamedTuple):
    """A sequence that must not wait, because it would wait for ever.

    Attributes:
        owner: The sequence.
        limit_id: The id of a key that it would never get.
        before: Those that are before it there and wait for ever too, as many as may hold the key. Empty: it
            would get its keys, but waits for a sequence in it that never does. A Job Runner of this project
            asks for the keys of a sequence only when those around it hold theirs, so it never is.
    """

    owner: Owner
    limit_id: str
    before: Sequence[Owner]


@dataclass(slots=True)
class Waits:
    """Who holds keys and waits for keys.

    Attributes:
        claims: The claims of each key, in its order.
        most: How many may hold each key.
        outer: For each sequence that waits, the owners that end after it.
        ending: The requests that end whatever they wait for, because they are being stopped.
        ended_waits: The sequences whose waits end, because their requests are being stopped.
    """

    claims: dict[str, Sequence[ClaimRow]] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    outer: dict[Owner, Sequence[Owner]] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)
    ended_waits: set[Owner] = field(default_factory=set)

    def never_end(self, known: Collection[Owner], without: Collection[Owner] = ()) -> set[Owner]:
        """Returns the owners that wait for ever: for each other, directly or not. Linear in the claims.

        Args:
            known: The owners that wait although their requests may be being stopped.
            without: The owners that do not count.
        """
        owners = {one.owner for claims in self.claims.values() for one in claims}
        stuck = {
            one
            for one in owners
            if one not in without
            and (one in known or (one.request_id not in self.ending and one not in self.ended_waits))
        }
        return _Ends(self, stuck).left

    def among(self, owners: Collection[Owner]) -> Waits:
        """Returns the waits of some owners alone, as if all others had ended."""
        claims: dict[str, Sequence[ClaimRow]] = {
            limit_id: [one for one in theirs if one.owner in owners]
            for limit_id, theirs in self.claims.items()
        }
        return Waits(claims, self.most, self.outer, self.ending, self.ended_waits)


class _Ends:
    """Lets owners end that can, one after another.

    Attributes:
        left: The owners that have not ended.
    """

    def __init__(self, waits: Waits, owners: set[Owner]) -> None:
        self.left = owners
        self._waits = waits
        self._places: defaultdict[Owner, list[tuple[str, int]]] = defaultdict(list)
        # For each key: how many claims have or had their turn, and how many of these are left.
        self._turns = dict.fromkeys(waits.claims, 0)
        self._held = dict.fromkeys(waits.claims, 0)
        # For each owner: the keys at which it has not had its turn, and the owners in it that are left.
        self._missing: Counter[Owner] = Counter()
        self._inside: Counter[Owner] = Counter()
        for limit_id, claims in waits.claims.items():
            for place, one in enumerate(claims):
                if one.owner in owners:
                    self._places[one.owner].append((limit_id, place))
                    self._missing[one.owner] += one.held_at is None
        for owner in owners:
            self._inside.update(waits.outer.get(owner, ()))
        self._ready = [one for one in owners if self._can_end(one)]
        for limit_id in waits.claims:
            self._go_on(limit_id)
        while self._ready:
            self._end(self._ready.pop())

    def _can_end(self, owner: Owner) -> bool:
        return owner in self.left and not self._missing[owner] and not self._inside[owner]

    def _go_on(self, limit_id: str) -> None:
        """Gives the next claims of a key their turn, while fewer than may hold it are left before them."""
        claims = self._waits.claims[limit_id]
        while self._turns[limit_id] < len(claims) and self._held[limit_id] < self._waits.most[limit_id]:
            one = claims[self._turns[limit_id]]
            self._turns[limit_id] += 1
            if one.owner in self.left:
                self._held[limit_id] += 1
                if one.held_at is None:
                    self._missing[one.owner] -= 1
                    if self._can_end(one.owner):
                        self._ready.append(one.owner)

    def _end(self, owner: Owner) -> None:
        if owner not in self.left:
            return
        self.left.remove(owner)
        for limit_id, place in self._places[owner]:
            if place < self._turns[limit_id]:
                self._held[limit_id] -= 1
                self._go_on(limit_id)
        for outer in self._waits.outer.get(owner, ()):
            self._inside[outer] -= 1
            if self._can_end(outer):
                self._ready.append(outer)


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


def endless_waits(
    transaction: Transaction, newcomers: Sequence[Newcomer], stopped: Collection[str]
) -> list[EndlessWait]:
    """Returns which sequences that have begun to wait close a circle with what waited before, and for whom.

    Args:
        transaction: The open transaction. It has called `lock_waits` and stored the claims of the sequences.
        newcomers: The sequences, in the order in which they began to wait.
        stopped: The requests that the transaction has stopped. This ends the waits of their sequences, unless
            these say that they go on. If one in a `finally` part waits later, it is looked at then.

    Raises:
        TooManyClaimsError: There are too many claims to look at.
    """
    waits = _waits_of(transaction, newcomers, stopped)
    newcomers = [one for one in newcomers if one.owner not in waits.ended_waits]
    refused = set(close_circles(waits, newcomers))
    if not refused:
        return []
    stuck = waits.never_end(_known(newcomers))
    return [_endless_wait(waits, one, stuck) for one in newcomers if one.owner in refused]


def _endless_wait(waits: Waits, newcomer: Newcomer, stuck: Collection[Owner]) -> EndlessWait:
    """Returns for whom a newcomer would wait.

    Args:
        waits: Everything that waits, with the newcomer.
        newcomer: One that waits for ever.
        stuck: All that wait for ever if all newcomers wait.
    """
    for limit_id in newcomer.limit_ids:
        owners = [one.owner for one in waits.claims[limit_id]]
        before = [one for one in owners[: owners.index(newcomer.owner)] if one in stuck]
        if len(before) >= waits.most[limit_id]:
            return EndlessWait(newcomer.owner, limit_id, before[: waits.most[limit_id]])
    return EndlessWait(newcomer.owner, next(iter(newcomer.limit_ids)), ())


def _known(newcomers: Sequence[Newcomer]) -> set[Owner]:
    """Returns the owners that wait although their requests may be being stopped."""
    return {owner for one in newcomers for owner in (one.owner, *one.outer)}


def close_circles(waits: Waits, newcomers: Sequence[Newcomer]) -> list[Owner]:
    """Returns which newcomers close a circle with what waited before and with earlier ones that close none.

    After MAX_SEARCHES searches, it returns all others too that would wait for ever if all of them waited.

    Args:
        waits: Everything that waits, with the newcomers.
        newcomers: The sequences, in the order in which they began to wait.
    """
    known = _known(newcomers)
    left = waits.never_end(known)
    waits = waits.among(left)  # Whoever ends although all newcomers wait ends anyway.
    searches = 1
    refused: list[Owner] = []
    # A newcomer that waits for ever does so too if more newcomers wait. So only these can close a circle.
    undecided = [one for one in newcomers if one.owner in left]
    while undecided:
        # The first one that closes a circle is among those from `low` to `high`.
        low, high = 0, len(undecided) - 1
        while low < high:
            if searches >= MAX_SEARCHES - 1:
                return refused + [one.owner for one in undecided[low:]]
            middle = (low + high) // 2
            searches += 1
            stuck = waits.never_end(known, {*refused, *(one.owner for one in undecided[middle + 1 :])})
            if stuck.isdisjoint(one.owner for one in undecided[: middle + 1]):
                low = middle + 1
            else:
                high = middle
        # Those behind it that want the same, within the same, close the same circle.
        first = undecided[low]
        refused += [one.owner for one in undecided[low:] if one.wants_same(first)]
        if undecided := [one for one in undecided[low:] if not one.wants_same(first)]:
            searches += 1
            left = waits.never_end(known, refused)
            undecided = [one for one in undecided if one.owner in left]
    return refused


def _waits_of(transaction: Transaction, newcomers: Sequence[Newcomer], stopped: Collection[str]) -> Waits:
    """Returns everything that may have to do with the waits of some sequences."""
    waits = Waits(outer={one.owner: one.outer for one in newcomers})
    known: set[str] = set()
    new_keys = {limit_id for one in newcomers for limit_id in one.limit_ids}
    while new_keys:
        _add_claims(transaction, waits, new_keys)
        found = {one.request_id for limit_id in new_keys for one in waits.claims[limit_id]} - known
        known |= found
        new_keys = _add_waiting(transaction, waits, found, stopped) - waits.claims.keys()
    return waits


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


def _add_waiting(
    transaction: Transaction, waits: Waits, request_ids: Collection[str], replaced: Collection[str]
) -> set[str]:
    """Adds what waits in some requests, and the requests that wait. Returns the ids of the keys for that."""
    stops = _stops(transaction, request_ids)
    waits.ending |= stops.ending
    claims = limit_rows.claims_of(transaction, set(request_ids) - waits.ending)
    waiting = [one for one in claims if one.held_at is None]
    sequences = {one.owner for one in waiting if one.sequence_id}
    for owner, asked in claims_of_sequences(transaction.connection, sequences).items():
        after_stop = asked.change.after_stop
        ends = after_stop == WAIT_AFTER_STOP_ENDS
        if after_stop == WAIT_AFTER_STOP_UNKNOWN:
            ends = owner.request_id in replaced and owner not in waits.outer
        if ends and owner.request_id in stops.stopping:
            waits.ended_waits.add(owner)
        else:
            waits.outer[owner] = Newcomer(owner, asked.change.around, ()).outer
    return {one.limit_id for one in waiting if one.owner not in waits.ended_waits}


class _Stops(NamedTuple):
    """Requests that have ended or are being stopped.

    Attributes:
        ending: Those that have ended, or end whatever they wait for.
        stopping: Those that are being stopped and may owe a `finally` part. Until a second stop skips it, it
            waits for its keys.
    """

    ending: set[str]
    stopping: set[str]


def _stops(transaction: Transaction, request_ids: Collection[str]) -> _Stops:
    """Returns those of some requests that have ended or are being stopped."""
    found = _Stops(set(), set())
    owes_nothing = or_(requests.c.has_finally.is_not(True), requests.c.skip_finally.is_(True))
    is_stopped = requests.c.stop_requested.is_(True)
    is_ending = or_(and_(is_stopped, owes_nothing), requests.c.state.in_(FINAL_STATES))
    for some in in_chunks(sorted(request_ids)):
        query = select(requests.c.request_id, case((is_ending, 1), else_=0).label("is_ending")).where(
            requests.c.request_id.in_(some), or_(is_stopped, is_ending)
        )
        for row in transaction.execute(query):
            (found.ending if row.is_ending else found.stopping).add(row.request_id)
    return found
