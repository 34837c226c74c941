"""Stores what sequences do with the keys of their limits, as runners report it.

A sequence gets its keys, waits for them, or is refused, in the transaction that stores the report. Its place
in the order of each key stays until it releases the key, whichever runner its request has. Releases come
first in a transaction, so they never wait for what others ask in it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.limit_pb2 import (
    LIMIT_POLICY_REFUSE,
    LIMIT_POLICY_REPLACE,
    Limit,
    SequenceLimitChange,
)
from spincycle_grpc.v1.runner_reports_pb2 import ChainReport
from spincycle_server.database.transaction import Transaction
from spincycle_server.limit_bounds import MAX_HOLDERS, MAX_KEY, MAX_LIMITS
from spincycle_server.store.audit import EventRow, effect_row
from spincycle_server.store.limit_deadlocks import (
    EndlessWait,
    Newcomer,
    TooManyClaimsError,
    endless_waits,
    lock_waits,
)
from spincycle_server.store.limit_holders import (
    first_claims_of_keys,
    holders_text,
    named_owners,
    names_of,
    paths_of,
)
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

LIMIT_REACHED = "LIMIT_REACHED"
LIMIT_DEADLOCK = "LIMIT_DEADLOCK"
TOO_MANY_AT_LIMIT = "TOO_MANY_AT_LIMIT"

_TOO_MANY_TO_LOOK_AT = "too many requests and sequences wait for limits to look whether one waits for ever"


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
        unsaved: The new rows that are not stored yet.
        reached: The sequences among these that are refused because of a limit.
        holders: Whether each request holds keys itself.
        nested: The sequences that begin to wait within something that holds keys.
        replacing: The claims that stop the requests before them, with the keys at which they do.
    """

    transaction: Transaction
    is_audited: bool
    stored: dict[Owner, SequenceClaim] = field(default_factory=dict)
    newest: dict[Owner, SequenceClaim] = field(default_factory=dict)
    left: dict[Owner, None] = field(default_factory=dict)
    asked: dict[Owner, SequenceClaim] = field(default_factory=dict)
    unsaved: list[SequenceClaim] = field(default_factory=list)
    reached: dict[Owner, Wanted] = field(default_factory=dict)
    holders: dict[Owner, bool] = field(default_factory=dict)
    nested: list[SequenceClaim] = field(default_factory=list)
    replacing: list[tuple[Claim, list[Wanted]]] = field(default_factory=list)

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
            # Others wait a little longer, until somebody looks for keys that nobody will release.
            if hasty := [claims[one.owner] for one in new if _may_be_refused(one)]:
                ledger.release_abandoned(hasty)
        for one in new:
            self._ask(one, claims[one.owner])
        self._save(now)
        if self.nested:
            lock_waits(self.transaction)
        stopped: set[str] = set()
        for claim, replaced in self.replacing:
            event = self._event(claim) if self.is_audited else None
            stopped |= replace_before(self.transaction, ledger, claim, replaced, event)
        if self.nested:
            self._find_deadlocks(now, stopped)
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
            self.reached[one.owner] = refused
        elif crowded is not None:
            waiting = f"{MAX_WAITING} requests and sequences wait for the limit {crowded.key}"
            _refuse(one, TOO_MANY_AT_LIMIT, f"{waiting}, which is the most")
        else:
            ledger.add(claim, holds=not full)
        self.unsaved.append(one)
        if not full or one.reason:
            return
        if self._is_within_keys(one):
            self.nested.append(one)
        if replaced := [limit for limit in full if policies[limit.key] == LIMIT_POLICY_REPLACE]:
            self.replacing.append((claim, replaced))

    def _save(self, now: int) -> None:
        """Stores the claims so far, and what was asked."""
        unsaved, self.unsaved = self.unsaved, []
        save_sequence_claims(self.transaction, [one for one in unsaved if one.owner not in self.reached], ())
        ledger_of(self.transaction).write(now)
        if self.reached:
            self._name_holders()
            refused = [one for one in unsaved if one.owner in self.reached]
            save_sequence_claims(self.transaction, refused, ())
            self.reached.clear()

    def _name_holders(self) -> None:
        """Completes the errors of sequences whose limits are reached. The holders are stored."""
        connection = self.transaction.connection
        first = first_claims_of_keys(connection, {limit.limit_id for limit in self.reached.values()})
        named = [
            owner
            for one, limit in self.reached.items()
            for owner in named_owners(one.request_id, (claim.owner for claim in first[limit.limit_id]))
        ]
        paths = paths_of(connection, named)
        for owner, limit in self.reached.items():
            if holders := holders_text(owner.request_id, first[limit.limit_id], paths):
                one = self.asked[owner]
                _refuse(one, one.reason, f"{one.error}: {holders}")

    def _is_within_keys(self, one: SequenceClaim) -> bool:
        """Whether something around a sequence holds keys. Otherwise nobody waits for its end."""
        around = Owner(one.owner.request_id)
        if around not in self.holders:
            self.holders[around] = bool(claims_of_owners(self.transaction, [around]))
        return bool(one.change.around) or self.holders[around]

    def _find_deadlocks(self, now: int, stopped: Collection[str]) -> None:
        """Refuses sequences that would wait for ever although some requests are being stopped."""
        newcomers = [
            Newcomer(one.owner, one.change.around, [_wanted(limit).limit_id for limit in one.change.limits])
            for one in self.nested
        ]
        ledger = ledger_of(self.transaction)
        try:
            endless = endless_waits(self.transaction, newcomers, stopped)
        except TooManyClaimsError:
            refused = [one.owner for one in newcomers]
            for owner in refused:
                _refuse(self.asked[owner], TOO_MANY_AT_LIMIT, _TOO_MANY_TO_LOOK_AT)
        else:
            refused = [one.owner for one in endless]
            self._name_those_before(endless)
        for owner in refused:
            ledger.leave(owner)
        ledger.settle(now)
        self.unsaved += [self.asked[owner] for owner in refused]
        self._save(now)

    def _name_those_before(self, endless: Sequence[EndlessWait]) -> None:
        """Refuses sequences that would wait for ever, and says for whom."""
        named = [owner for one in endless for owner in named_owners(one.owner.request_id, one.before)]
        paths = paths_of(self.transaction.connection, named)
        for one in endless:
            asked = self.asked[one.owner]
            key = next(limit.key for limit in asked.change.limits if _wanted(limit).limit_id == one.limit_id)
            if one.before:
                names = names_of(one.owner.request_id, one.before, paths)
                do = "are before it and wait" if len(one.before) > 1 else "is before it and waits"
                why = f"{names} {do}, perhaps by way of others, for what this request holds"
            else:
                why = "a sequence within it does"
            _refuse(asked, LIMIT_DEADLOCK, f"the sequence would wait for the limit {key} for ever: {why}")

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
    return Claim(one.owner, list(map(_wanted, one.change.limits)), "", now)


def _wanted(limit: Limit) -> Wanted:
    return Wanted(limit.key, limit.max)


def _may_be_refused(one: SequenceClaim) -> bool:
    return any(limit.policy == LIMIT_POLICY_REFUSE for limit in one.change.limits)


def _refuse(one: SequenceClaim, reason: str, error: str) -> None:
    one.reason, one.error = reason, error[:MAX_LIMIT_ERROR]
