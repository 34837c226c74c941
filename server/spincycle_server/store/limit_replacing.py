"""The policy `replace`: a claim stops the requests before it, so that it is the next to hold a key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from spincycle_grpc.state import FINAL_STATES, State
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.audit import EventRow, new_event_id
from spincycle_server.store.limit_holders import name_of
from spincycle_server.store.limit_ledger import Claim, LimitLedger, LimitsChanged, Replaced, Wanted
from spincycle_server.store.limit_rows import claims_before, claims_of_owners
from spincycle_server.store.request_rows import RequestRows
from spincycle_server.store.states import RequestStop, StopUnassigned

STOP = "RequestManager.Stop"
"""The operation of the audit events."""


def replace_before(
    transaction: Transaction,
    ledger: LimitLedger,
    claim: Claim,
    limits: Sequence[Wanted],
    event: EventRow | None,
) -> set[str]:
    """Stops requests before a claim, the oldest first, until few enough are left for it to hold its keys.

    Other sequences of its own request count, but only other requests are stopped. Requests that are being
    stopped already do not count. A request that no runner has ends at once, and the next one holds its
    keys. A RUNNING one ends when its runner has stopped it, and one that may owe `finally` parts when a
    runner has run these. This is committed with the claim, so it happens whatever dies.

    Args:
        transaction: The open transaction.
        ledger: Its ledger, which has locked the keys and stored the claim.
        claim: The claim.
        limits: The limits of the claim that are reached and have the policy.
        event: The audit event of the call that creates the request, or one of the same form for a sequence.

    Returns:
        The ids of the requests that were stopped.
    """
    # Later claims of the transaction may be stored already.
    tickets = {one.limit_id: one.ticket for one in claims_of_owners(transaction, [claim.owner])}
    before = {limit: claims_before(transaction, limit.limit_id, tickets[limit.limit_id]) for limit in limits}
    mine = claim.owner.request_id
    rows = RequestRows(transaction, {one for ids in before.values() for one in ids if one != mine})
    stopped: set[str] = set()
    for limit, ids in before.items():
        going = Counter(one for one in ids if one == mine or _goes_on(rows, one))
        for request_id in _too_many(going, mine, limit.max):
            why = f"replaced by {_name(claim)} at the limit {limit.key}"
            name = name_of(request_id, claim.owner, {})
            rows.change(request_id, stop_reason=f"{name} replaced it at the limit {limit.key}")
            is_running = _stop(rows, request_id, claim.at, _event_of(rows, request_id, why, event))
            transaction.events.append(
                LimitsChanged(
                    stopped=(request_id,) if is_running else (), replaced=(Replaced(request_id, why),)
                )
            )
            stopped.add(request_id)
    rows.save()
    ledger.settle(claim.at)
    return stopped


def _too_many(going: Counter[str], mine: str, most: int) -> list[str]:
    """Returns the requests to stop, so that fewer than `most` claims are left, or none of other requests.

    Args:
        going: How many claims each request has, the oldest first. They end together.
        mine: The request that is never stopped.
        most: How many may hold the key.
    """
    excess = going.total() - most + 1
    found: list[str] = []
    for request_id, claims in going.items():
        if request_id != mine and excess > 0:
            found.append(request_id)
            excess -= claims
    return found


def _name(claim: Claim) -> str:
    owner = claim.owner
    within = f"sequence {owner.sequence_id} of " if owner.sequence_id else ""
    return f"{within}request {owner.request_id}"


def _goes_on(rows: RequestRows, request_id: str) -> bool:
    row = rows.get(request_id)
    return row is not None and row["state"] not in FINAL_STATES and not row["stop_requested"]


def _event_of(rows: RequestRows, request_id: str, why: str, event: EventRow | None) -> EventRow | None:
    """Returns the audit event of a request that is stopped, from that of the call which stops it."""
    row = rows.get(request_id)
    if row is None or event is None:
        return None
    return {
        **event,
        "event_id": new_event_id(),
        "operation": STOP,
        "request_id": request_id,
        "request_type": row["type"],
        "detail": why,
    }


def _stop(rows: RequestRows, request_id: str, now: int, event: EventRow | None) -> bool:
    """Stops a request that has not ended. Returns whether a runner must be told."""
    row = rows.get(request_id)
    if row is not None and row["state"] == State.RUNNING:
        RequestStop(request_id, now, event).change(rows, row)
        return True
    if row is not None:
        StopUnassigned(request_id, now, event).change(rows, row)
    return False
