"""Stores new requests with limits: each gets its keys, waits for them, or is refused.

This happens in the transaction that creates it.

A request that waits is PENDING. Its row names the requirement WAITS_FOR_LIMIT, so no Request Manager looks at
it, and its claims have the requirement that it gets with its keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import delete

from spincycle_grpc.errors import FailedPreconditionError, ResourceExhaustedError, SpinCycleError
from spincycle_grpc.v1.limit_pb2 import LIMIT_POLICY_REFUSE, LIMIT_POLICY_REPLACE, LimitPolicy
from spincycle_server.capabilities import WAITS_FOR_LIMIT
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.errors import CreatedBeforeError
from spincycle_server.store.limit_holders import first_claims_of_keys, holders_text
from spincycle_server.store.limit_ledger import MAX_WAITING, Claim, Wanted, ledger_of
from spincycle_server.store.limit_replacing import replace_before
from spincycle_server.store.limit_rows import Owner
from spincycle_server.store.schema import idempotency_keys

if TYPE_CHECKING:
    from spincycle_server.store.creation import CreateRequest


def with_limits(
    transaction: Transaction,
    limited: Sequence[CreateRequest],
    writes: Sequence[CreateRequest],
    results: Sequence[SpinCycleError | None],
) -> list[SpinCycleError | bool | None]:
    """Stores new requests with limits.

    Args:
        transaction: The open transaction, which has claimed the idempotency keys.
        limited: The requests to store.
        writes: All new requests of the transaction, including those.
        results: Why some of them must not be created; None for the others.

    Returns:
        The results: for a stored request with limits, whether it waits for one of them; for one that was not
        stored because of a limit, FailedPreconditionError (LIMIT_REACHED) or ResourceExhaustedError
        (TOO_MANY_AT_LIMIT, TOO_MANY_BLOCKED).
    """
    refused = _LimitedCreations(transaction).create(limited)
    _unclaim_keys(transaction, [one for one in limited if one.request["request_id"] in refused])
    return [
        refused.get(write.request["request_id"])
        or (refused.get(result.request_id) if isinstance(result, CreatedBeforeError) else None)
        or (_waits(write) if result is None and write.limits else result)
        for write, result in zip(writes, results, strict=True)
    ]


class _LimitedCreations:
    """Stores the new requests with limits of one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._ledger = ledger_of(transaction)
        self._unwritten: list[CreateRequest] = []
        self._reached: dict[str, Wanted] = {}

    def create(self, creations: Sequence[CreateRequest]) -> dict[str, SpinCycleError]:
        """Stores requests in their order. Returns why some were not stored, by their ids."""
        claims = [_claim_of(creation) for creation in creations]
        self._ledger.lock(claims)
        self._ledger.release_abandoned(claims)
        refused: dict[str, SpinCycleError] = {}
        for creation, claim in zip(creations, claims, strict=True):
            if refusal := self._add(creation, claim):
                refused[claim.owner.request_id] = refusal
        self._write(claims[-1].at)
        return refused | self._limits_reached()

    def _add(self, creation: CreateRequest, claim: Claim) -> SpinCycleError | None:
        full = self._ledger.full(claim)
        reached = next((one for one in full if _policy(creation, one) == LIMIT_POLICY_REFUSE), None)
        if reached is not None:
            self._reached[claim.owner.request_id] = reached
            return None
        if full and (refusal := self._refusal(creation, full)):
            return refusal
        self._ledger.add(claim, holds=not full)
        requirement = WAITS_FOR_LIMIT.requirement_id if full else claim.requirement
        creation.request.update(requirement=requirement, has_limits=True)
        self._unwritten.append(creation)
        replaced = [one for one in full if _policy(creation, one) == LIMIT_POLICY_REPLACE]
        if replaced:
            self._write(claim.at)
            replace_before(self._transaction, self._ledger, claim, replaced, creation.event)
        return None

    def _refusal(self, creation: CreateRequest, full: Sequence[Wanted]) -> SpinCycleError | None:
        for limit in full:
            if self._ledger.waiting(limit) >= MAX_WAITING:
                return _too_many(limit)
        return None if creation.may_wait else _too_many_blocked(full[0])

    def _limits_reached(self) -> dict[str, SpinCycleError]:
        """Returns the errors of requests that must not wait. Their limits name holders that are stored."""
        if not self._reached:
            return {}
        keys = {limit.limit_id for limit in self._reached.values()}
        first = first_claims_of_keys(self._transaction.connection, keys)
        return {
            request_id: _limit_reached(limit, holders_text(request_id, first[limit.limit_id], {}))
            for request_id, limit in self._reached.items()
        }

    def _write(self, now: int) -> None:
        """Stores the requests so far, and their claims."""
        creations, self._unwritten = self._unwritten, []
        for creation in creations:
            type(creation).insert(self._transaction, [creation])
        self._ledger.write(now)


def _claim_of(creation: CreateRequest) -> Claim:
    row = creation.request
    limits = [Wanted(limit.key, limit.max) for limit in creation.limits]
    return Claim(Owner(row["request_id"]), limits, creation.requirement_id, row["created_at"])


def _waits(creation: CreateRequest) -> bool:
    return bool(creation.request["requirement"] == WAITS_FOR_LIMIT.requirement_id)


def _policy(creation: CreateRequest, wanted: Wanted) -> LimitPolicy.ValueType:
    return next(limit.policy for limit in creation.limits if limit.key == wanted.key)


def _unclaim_keys(transaction: Transaction, refused: Sequence[CreateRequest]) -> None:
    """Frees the idempotency keys of requests that are not stored."""
    ids = [creation.request["request_id"] for creation in refused if creation.key is not None]
    hashes = [creation.key.key_hash for creation in refused if creation.key is not None]
    if hashes:
        transaction.execute(
            delete(idempotency_keys).where(
                idempotency_keys.c.key_hash.in_(hashes), idempotency_keys.c.request_id.in_(ids)
            )
        )


def _limit_reached(limit: Wanted, holders: str) -> FailedPreconditionError:
    """Returns the error for a request that must not wait for a limit."""
    who = f" ({holders})" if holders else ""
    return FailedPreconditionError(
        f"the limit {limit.key} of {limit.max} is reached{who}: wait for the end of what holds it, or stop "
        "that; `spinc locks` shows it",
        reason="LIMIT_REACHED",
    )


def _too_many(limit: Wanted) -> ResourceExhaustedError:
    return ResourceExhaustedError(
        f"{MAX_WAITING} requests wait for the limit {limit.key}, which is the most: try again later, "
        "or stop requests",
        reason="TOO_MANY_AT_LIMIT",
    )


def _too_many_blocked(limit: Wanted) -> ResourceExhaustedError:
    return ResourceExhaustedError(
        f"the limit {limit.key} of {limit.max} is reached, and so is the limit of requests that may wait for "
        "limits and for missing job runners: try again later, or stop requests",
        reason="TOO_MANY_BLOCKED",
    )
