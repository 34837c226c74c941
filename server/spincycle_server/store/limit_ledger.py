"""Who holds the keys of limits, as one transaction changes it.

An owner of claims gets all its keys at once, when fewer than `max` are before it in the order of each of
them. The order of a key is that of commits under the lock of its row. An owner locks all its keys before it
begins to wait, so two owners have the same order in all keys that they share, and never wait for each other.
An owner that waits keeps its place in each order: it is never overtaken.

A transaction locks requests first, then keys in the order of their ids, and then lets requests start. Which
keys the next owners need is known only after the keys for which they wait are locked, and sequences ask for
keys after others are released. So a transaction may need further keys, out of order. If others have locked
these, it does not wait. It is repeated, and first locks all keys that it has needed. If it waited, PostgreSQL
would find the deadlock after a second.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from spincycle_server.capabilities import content_id
from spincycle_server.database.transaction import Transaction
from spincycle_server.store import limit_rows
from spincycle_server.store.limit_rows import ClaimRow, LimitRow, Owner

MAX_WAITING = 1000
"""How many may wait for one key."""


class LimitsChanged(NamedTuple):
    """What a transaction has done with limits: an event, which counts once it is committed.

    Attributes:
        granted: The owners that hold keys now for which they had waited.
        stopped: The RUNNING requests that must stop because another one replaces them.
        replaced: All requests that are stopped because another one replaces them, and why.
    """

    granted: Sequence[Owner] = ()
    stopped: Sequence[str] = ()
    replaced: Sequence[Replaced] = ()


class Replaced(NamedTuple):
    """A request that is stopped because another one replaces it.

    Attributes:
        request_id: The request.
        why: Who replaces it, at which limit.
    """

    request_id: str
    why: str


class Wanted(NamedTuple):
    """A limit that an owner counts for.

    Attributes:
        key: The key.
        max: How many may hold it.
    """

    key: str
    max: int

    @property
    def limit_id(self) -> str:
        """The id of the key."""
        return content_id(self.key.encode())


@dataclass(frozen=True, slots=True)
class Claim:
    """What an owner wants to hold.

    Attributes:
        owner: The owner.
        limits: The limits, each with another key.
        requirement: What the request needs of a runner.
        at: The time, in microseconds since the Unix epoch.
    """

    owner: Owner
    limits: Sequence[Wanted]
    requirement: str
    at: int


def ledger_of(transaction: Transaction) -> LimitLedger:
    """Returns the ledger of a transaction."""
    ledger = transaction.parts.get(LimitLedger)
    if ledger is None:
        ledger = transaction.parts[LimitLedger] = LimitLedger(transaction)
    return ledger


def settle(transaction: Transaction, now: int) -> None:
    """Releases the keys of requests that the transaction has ended. Without such requests, it does nothing.

    This is the end of the work on limits in a transaction.
    """
    ledger = transaction.parts.get(LimitLedger)
    if ledger is not None:
        ledger.settle(now)
        ledger.drop_unused()


class LimitLedger:
    """The keys that a transaction has locked. Made by `ledger_of`."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._rows: dict[str, LimitRow] = {}
        self._has_locks = False
        kept = transaction.kept
        # What this attempt and those before it have needed; None if nobody repeats the transaction.
        self._needed: set[str] | None = None if kept is None else kept.setdefault(LimitLedger, set())
        self._ended: set[str] = set()
        self._left: set[Owner] = set()
        self._added: list[dict[str, Any]] = []
        self._changed: set[str] = set()
        self._raised: set[str] = set()

    def release(self, request_id: str) -> None:
        """Notes that a request has ended. `settle` removes its claims."""
        self._ended.add(request_id)

    def leave(self, owner: Owner) -> None:
        """Notes that a sequence gives up its keys, or its places. `settle` removes its claims."""
        self._left.add(owner)

    def settle(self, now: int) -> None:
        """Removes the claims of requests and sequences that have ended, and lets the next ones hold the keys.

        Args:
            now: The time, in microseconds since the Unix epoch.
        """
        ended, self._ended = self._ended, set()
        left, self._left = self._left, set()
        if not ended and not left:
            return
        self._lock({one.limit_id for one in self._claims_of(ended, left)})
        self._remove(self._claims_of(ended, left), now)
        limit_rows.forget_sequences(self._transaction, ended, left)

    def _claims_of(self, request_ids: Collection[str], owners: Collection[Owner]) -> list[ClaimRow]:
        found = limit_rows.claims_of(self._transaction, request_ids)
        others = [owner for owner in owners if owner.request_id not in request_ids]
        return found + limit_rows.claims_of_owners(self._transaction, others)

    def lock(self, claims: Iterable[Claim]) -> None:
        """Locks the keys of new claims, and adds rows for keys that have none."""
        wanted = {limit.limit_id: limit for claim in claims for limit in claim.limits}
        if self._has_locks or self._needed:  # An INSERT would wait, and lock further keys out of order.
            self._lock(wanted)
        new = wanted.keys() - self._rows.keys()
        if new:
            limit_rows.add_limits(self._transaction, [(one, wanted[one].key, wanted[one].max) for one in new])
            self._lock(new)

    def release_abandoned(self, claims: Sequence[Claim]) -> None:
        """Removes claims of requests that have ended, at keys that are too full for all new claims.

        Somebody left them behind, or this transaction has ended their requests. Call it before the first
        `add`: the request of a claim that was added may have no row yet, as if it had been deleted.

        Args:
            claims: The new claims, whose keys are locked.
        """
        now = claims[0].at
        self.settle(now)
        wanted: defaultdict[str, list[int]] = defaultdict(list)
        for limit in (limit for claim in claims for limit in claim.limits):
            wanted[limit.limit_id].append(limit.max)
        times = 1
        while ended := self._abandoned(wanted, times):
            self._ended |= ended
            self.settle(now)
            times *= 2  # The requests behind them may have ended too.

    def full(self, claim: Claim) -> list[Wanted]:
        """Returns the limits of a claim that are reached. Its keys must be locked."""
        return [limit for limit in claim.limits if self._row(limit).claims >= limit.max]

    def waiting(self, limit: Wanted) -> int:
        """Returns how many wait for a key, if its limit is reached."""
        row = self._row(limit)
        return max(0, row.claims - row.max)

    def add(self, claim: Claim, *, holds: bool) -> None:
        """Adds a claim, which `write` stores. Its keys must be locked.

        Args:
            claim: The claim.
            holds: Whether it holds its keys at once. Otherwise it waits.
        """
        for limit in claim.limits:
            row = self._row(limit)
            row.last_ticket += 1
            row.claims += 1
            self._changed.add(limit.limit_id)
            self._added.append(_new_row(claim, row, holds=holds))

    def write(self, now: int) -> None:
        """Stores the claims that were added.

        Args:
            now: The time, in microseconds since the Unix epoch.
        """
        added, self._added = self._added, []
        if added:
            limit_rows.add_claims(self._transaction, added)
        changed = [self._rows[one] for one in self._changed | self._raised]
        raised = [self._rows[one] for one in self._raised]
        self._changed.clear()
        self._raised.clear()
        limit_rows.save_limits(self._transaction, changed)
        if raised:
            self._grant(raised, now)

    def drop_unused(self) -> None:
        """Deletes the rows of locked keys that nobody holds or waits for, at the end of the transaction."""
        unused = [row.limit_id for row in self._rows.values() if not row.claims]
        if unused:
            limit_rows.delete_limits(self._transaction, unused)
        for limit_id in unused:
            del self._rows[limit_id]

    def _abandoned(self, wanted: Mapping[str, Sequence[int]], times: int) -> set[str]:
        """Returns ended requests among the first at keys that are too full.

        Args:
            wanted: How many may hold each key, for each new claim of it.
            times: How many times as many claims to look at as may hold a key.
        """
        found: set[str] = set()
        for limit_id, numbers in wanted.items():
            row = self._rows[limit_id]
            if row.claims and row.claims + len(numbers) > min(numbers):
                most = max(row.max, *numbers) * times
                found |= limit_rows.ended_requests(self._transaction, limit_id, most)
        return found

    def _row(self, limit: Wanted) -> LimitRow:
        """Returns the row of a locked key. The newest claim says how many may hold it."""
        row = self._rows[limit.limit_id]
        if limit.max > row.max:
            self._raised.add(limit.limit_id)
        row.max = limit.max
        return row

    def _lock(self, limit_ids: Collection[str]) -> None:
        """Locks further keys, see the docstring of the module."""
        missing = set(limit_ids) - self._rows.keys()
        if not missing:
            return
        if self._needed is not None:
            self._needed |= missing
            if not self._has_locks:
                missing = self._needed
        may_wait = self._needed is None or not self._has_locks
        self._has_locks = True
        self._rows |= limit_rows.lock_limits(self._transaction, missing, waits=may_wait)

    def _remove(self, claims: Sequence[ClaimRow], now: int) -> None:
        changed: dict[str, LimitRow] = {}
        removed = [one for one in claims if one.limit_id in self._rows]
        for one in removed:
            row = changed[one.limit_id] = self._rows[one.limit_id]
            row.claims -= 1
        limit_rows.remove_claims(self._transaction, removed)
        # A request that ends while it waits may be retried, and its retry needs what it has needed.
        limit_rows.set_requirements(self._transaction, (one for one in removed if one.held_at is None))
        kept = [row for row in changed.values() if row.claims]
        limit_rows.save_limits(self._transaction, kept)
        self._grant(kept, now)

    def _grant(self, rows: Sequence[LimitRow], now: int) -> None:
        """Lets each owner hold its keys if it is among the first at all of them."""
        first = {row.limit_id: self._first(row) for row in rows}
        next_ones = {one.owner for claims in first.values() for one in claims if one.held_at is None}
        if not next_ones:
            return
        claims: defaultdict[Owner, list[ClaimRow]] = defaultdict(list)
        for one in limit_rows.claims_of_owners(self._transaction, next_ones):
            claims[one.owner].append(one)
        others = {one.limit_id for theirs in claims.values() for one in theirs} - first.keys()
        self._lock(others)
        for limit_id in others & self._rows.keys():
            first[limit_id] = self._first(self._rows[limit_id])
        granted = {owner: theirs for owner, theirs in claims.items() if _are_first(theirs, first)}
        if granted:
            limit_rows.hold(self._transaction, [one for theirs in granted.values() for one in theirs], now)
            self._transaction.events.append(LimitsChanged(granted=tuple(granted)))

    def _first(self, row: LimitRow) -> list[ClaimRow]:
        return limit_rows.first_claims(self._transaction, row.limit_id, row.max)


def _are_first(claims: Iterable[ClaimRow], first: Mapping[str, Sequence[ClaimRow]]) -> bool:
    return all(any(one.ticket == other.ticket for other in first.get(one.limit_id, ())) for one in claims)


def _new_row(claim: Claim, row: LimitRow, *, holds: bool) -> dict[str, Any]:
    return {
        "limit_id": row.limit_id,
        "ticket": row.last_ticket,
        "request_id": claim.owner.request_id,
        "sequence_id": claim.owner.sequence_id,
        "claimed_at": claim.at,
        "held_at": claim.at if holds else None,
        "requirement": claim.requirement,
    }
