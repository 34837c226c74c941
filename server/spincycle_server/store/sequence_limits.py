"""Stores what sequences do with the keys of their limits, as runners report it.

A sequence gets its keys, waits for them, or is refused, in the transaction that stores the report. Its place
in the order of each key stays until it releases the key, whichever runner its request has. Releases come
first in a transaction, so they never wait for what others ask in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.limit_pb2 import (
    LIMIT_POLICY_REFUSE,
    LIMIT_POLICY_REPLACE,
    LimitPolicy,
    SequenceLimitChange,
)
from spincycle_grpc.v1.runner_reports_pb2 import ChainReport
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.audit import EventRow, effect_row
from spincycle_server.store.limit_deadlocks import TooManyClaimsError, lock_waits, waits_for_ever
from spincycle_server.store.limit_ledger import MAX_WAITING, Claim, Wanted, ledger_of
from spincycle_server.store.limit_replacing import STOP, replace_before
from spincycle_server.store.limit_rows import Owner, claims_of_owners
from spincycle_server.store.request_rows import RequestRows
from spincycle_server.store.schema import JOB_ID, MAX_LIMIT_ERROR, requests
from spincycle_server.store.sequence_claim_rows import (
    SequenceClaim,
    claims_of_sequences,
    save_sequence_claims,
    sequence_claims_of,
)

MAX_CHANGES = 1000
"""How many changes a report of a chain may have."""

MAX_LIMITS = 10
"""How many limits a sequence may have."""

MAX_KEY = 200
"""The longest key, in characters."""

MAX_HOLDERS = 1000
"""The largest `max` of a limit."""

LIMIT_REACHED = "LIMIT_REACHED"
LIMIT_DEADLOCK = "LIMIT_DEADLOCK"
TOO_MANY_AT_LIMIT = "TOO_MANY_AT_LIMIT"


def are_valid_changes(changes: Sequence[SequenceLimitChange]) -> bool:
    """Returns whether changes that a runner reports can be stored."""
    return len(changes) <= MAX_CHANGES and all(map(_is_valid, changes))


def _is_valid(change: SequenceLimitChange) -> bool:
    if not change.number or not all(map(JOB_ID.fullmatch, (*change.around, *change.kept))):
        return False
    if change.begins:
        return change.number == 1 and not change.sequence_id
    keys = {limit.key for limit in change.limits}
    return bool(
        JOB_ID.fullmatch(change.sequence_id)
        and len(keys) == len(change.limits) <= MAX_LIMITS
        and all(0 < len(key) <= MAX_KEY for key in keys)
        and all(1 <= limit.max <= MAX_HOLDERS for limit in change.limits)
    )


def limits_changed(
    transaction: Transaction,
    rows: RequestRows,
    reports: Sequence[ChainReport],
    *,
    is_audited: bool,
) -> None:
    """Stores what sequences have done with the keys of their limits. Their requests must be locked.

    Args:
        transaction: The open transaction.
        rows: The rows of the requests, which are saved.
        reports: The reports with changes, in order.
        is_audited: Whether stops of other requests are recorded in the audit log.
    """
    # The end of a request releases all of its keys.
    going = [one for one in reports if not _has_ended(rows, one)]
    if going:
        changes = _Changes(transaction, is_audited)
        changes.read(going)
        changes.apply()


def _has_ended(rows: RequestRows, report: ChainReport) -> bool:
    row = rows.get(report.assignment.request_id)
    return row is None or row["state"] in FINAL_STATES


@dataclass(slots=True)
class _Changes:
    """The changes of one transaction.

    Attributes:
        stored: What the sequences had asked before.
        newest: The newest changes of assignments.
        left: The sequences that give up their keys.
        asked: What sequences ask.
    """

    transaction: Transaction
    is_audited: bool
    stored: dict[Owner, SequenceClaim] = field(default_factory=dict)
    newest: dict[Owner, SequenceClaim] = field(default_factory=dict)
    left: dict[Owner, None] = field(default_factory=dict)
    asked: dict[Owner, SequenceClaim] = field(default_factory=dict)

    def read(self, reports: Sequence[ChainReport]) -> None:
        """Reads what is stored, and what the reports change of that."""
        connection = self.transaction.connection
        self.transaction.flush()
        whole = {one.assignment.request_id for one in reports if one.limit_changes[0].begins}
        self.stored = sequence_claims_of(connection, whole)
        others = {
            Owner(one.assignment.request_id, sequence_id)
            for one in reports
            for sequence_id in ("", *(change.sequence_id for change in one.limit_changes))
            if one.assignment.request_id not in whole
        }
        self.stored |= claims_of_sequences(connection, others)
        for report in reports:
            self._read_one(report)

    def _read_one(self, report: ChainReport) -> None:
        request_id, epoch = report.assignment.request_id, report.assignment.epoch
        newest = Owner(request_id)
        known = self.newest.get(newest) or self.stored.get(newest)
        last = known.number if known is not None and known.epoch == epoch else 0
        for change in report.limit_changes:
            if change.number <= last:  # The message is repeated, or late.
                continue
            last = change.number
            if change.begins:
                kept = set(change.kept)
                mine = [one for one in self.stored if one.request_id == request_id and one.sequence_id]
                self.left |= dict.fromkeys(one for one in mine if one.sequence_id not in kept)
                continue
            owner = Owner(request_id, change.sequence_id)
            if change.limits:
                self.asked[owner] = SequenceClaim(owner, epoch, change.number, change)
            else:
                self.asked.pop(owner, None)
                self.left[owner] = None
        self.newest[newest] = SequenceClaim(newest, epoch, last, SequenceLimitChange())

    def apply(self) -> None:
        """Releases keys first, and then asks for keys."""
        ledger = ledger_of(self.transaction)
        now = time.time_ns() // 1000
        # A sequence that was refused asks anew.
        self.left |= dict.fromkeys(
            one for one in self.asked if one in self.stored and self.stored[one].reason
        )
        for owner in self.left:
            if self.stored.pop(owner, None) is not None:
                ledger.leave(owner)
        ledger.settle(now)
        new = [one for one in self.asked.values() if one.owner not in self.stored]
        claims = {one.owner: _claim_of(one, now) for one in new}
        if claims:
            ledger.lock(claims.values())
            ledger.release_abandoned(list(claims.values()))
        for one in new:
            self._ask(one, claims[one.owner])
        ledger.write(now)
        again = [one for one in self.asked.values() if one.owner in self.stored]
        save_sequence_claims(self.transaction, [*again, *self.newest.values()], self.stored.keys())

    def _ask(self, one: SequenceClaim, claim: Claim) -> None:
        """Lets a sequence hold its keys, wait for them, or be refused."""
        ledger = ledger_of(self.transaction)
        policies = {limit.key: limit.policy for limit in one.change.limits}
        full = ledger.full(claim)
        refused = next((limit for limit in full if policies[limit.key] == LIMIT_POLICY_REFUSE), None)
        crowded = next((limit for limit in full if ledger.waiting(limit) >= MAX_WAITING), None)
        if refused is not None:
            _refuse(one, LIMIT_REACHED, f"the limit {refused.key} of {refused.max} is reached")
        elif crowded is not None:
            waiting = f"{MAX_WAITING} requests and sequences wait for the limit {crowded.key}"
            _refuse(one, TOO_MANY_AT_LIMIT, f"{waiting}, which is the most")
        else:
            ledger.add(claim, holds=not full)
        save_sequence_claims(self.transaction, [one], ())
        if full and not one.reason:
            ledger.write(claim.at)
            self._begin_to_wait(one, claim)
            if not one.reason:
                self._replace(claim, full, policies)

    def _begin_to_wait(self, one: SequenceClaim, claim: Claim) -> None:
        """Refuses a sequence that would wait for ever. Without keys around it, nobody waits for its end."""
        around = Owner(claim.owner.request_id)
        if not one.change.around and not claims_of_owners(self.transaction, [around]):
            return
        lock_waits(self.transaction)
        keys = [limit.limit_id for limit in claim.limits]
        try:
            if not waits_for_ever(self.transaction, claim.owner, one.change.around, keys):
                return
            why = "those who hold them wait, perhaps by way of others, for what this request holds"
            _refuse(one, LIMIT_DEADLOCK, f"the sequence would wait for its limits for ever: {why}")
        except TooManyClaimsError:
            why = "too many requests and sequences wait for limits to look whether one waits for ever"
            _refuse(one, TOO_MANY_AT_LIMIT, why)
        ledger = ledger_of(self.transaction)
        ledger.leave(claim.owner)
        ledger.settle(claim.at)
        save_sequence_claims(self.transaction, [one], ())

    def _replace(
        self, claim: Claim, full: Iterable[Wanted], policies: Mapping[str, LimitPolicy.ValueType]
    ) -> None:
        replaced = [limit for limit in full if policies[limit.key] == LIMIT_POLICY_REPLACE]
        if replaced:
            event = self._event(claim) if self.is_audited else None
            replace_before(self.transaction, ledger_of(self.transaction), claim, replaced, event)

    def _event(self, claim: Claim) -> EventRow:
        """Returns an audit event of the user who created the request of a sequence."""
        of_request = requests.c.request_id == claim.owner.request_id
        user = self.transaction.execute(select(requests.c.user).where(of_request)).scalar_one()
        return effect_row(
            user=user or "",
            auth_method="request",
            peer="",
            transport="",
            operation=STOP,
            request_id="",
            request_type="",
        )


def _claim_of(one: SequenceClaim, now: int) -> Claim:
    limits = [Wanted(limit.key, limit.max) for limit in one.change.limits]
    return Claim(one.owner, limits, "", now)


def _refuse(one: SequenceClaim, reason: str, error: str) -> None:
    one.reason, one.error = reason, error[:MAX_LIMIT_ERROR]
