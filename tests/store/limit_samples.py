"""Requests with limits, and what the database says about them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from spincycle_grpc.state import State
from spincycle_grpc.v1 import limit_pb2
from spincycle_grpc.v1.limit_pb2 import (
    Limit,
    LimitPolicy,
    SequenceLimitChange,
    SequenceLimitOutcome,
    WaitAfterStop,
)
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, ChainReport
from spincycle_server.capabilities import FINALLY, Requirement
from spincycle_server.store import IdempotencyKey, Store, creation
from spincycle_server.store.schema import limit_claims, limits
from spincycle_server.store.sequence_claim_rows import SequenceWait
from tests.store.managers import read_rows
from tests.store.samples import RUNNER, a_chain, a_report, a_request

QUEUE = limit_pb2.LIMIT_POLICY_QUEUE
REFUSE = limit_pb2.LIMIT_POLICY_REFUSE
REPLACE = limit_pb2.LIMIT_POLICY_REPLACE

NEEDS = Requirement(frozenset({"noop", "nap"}))
"""What the requests need of a runner."""

NEEDS_FINALLY = Requirement(NEEDS.types, features=frozenset({FINALLY}))
"""The same, if their chains have `finally` parts."""


async def create_limited(
    store: Store,
    *keys: str,
    most: int | dict[str, int] = 1,
    policy: LimitPolicy.ValueType | dict[str, LimitPolicy.ValueType] = QUEUE,
    key: IdempotencyKey | None = None,
    may_wait: bool = True,
    event: dict[str, Any] | None = None,
    requirement: Requirement = NEEDS,
    **fields: Any,
) -> Request:
    """Stores a new request with limits, and returns it."""
    request = a_request(**fields)
    chain = a_chain(request.id)
    for name in keys:
        highest = most if isinstance(most, int) else most[name]
        what = policy[name] if isinstance(policy, dict) else policy
        chain.limits.append(Limit(key=name, max=highest, policy=what))
    await store.create_request(
        request,
        CreateRequest(type=request.type, user=request.user),
        chain,
        None,
        key,
        requirement=requirement,
        may_wait=may_wait,
        event=event,
    )
    return request


def limited_write(*keys: str, most: int = 1, policy: LimitPolicy.ValueType = QUEUE) -> creation.CreateRequest:
    """Returns the write that stores a new request with limits, to put it into a batch of writes."""
    request = a_request()
    chain = a_chain(request.id)
    chain.limits.extend(Limit(key=key, max=most, policy=policy) for key in keys)
    asked = CreateRequest(type=request.type, user=request.user)
    return creation.creation_of(request, asked, chain, None, None, now=1, requirement_id=NEEDS.requirement_id)


async def holders(url: str) -> dict[str, list[str]]:
    """Returns the requests that hold each key, oldest first. Checks the numbers that the rows keep."""
    held: dict[str, list[str]] = defaultdict(list)
    for key, claims in (await claims_by_key(url)).items():
        held[key] = [request_id for request_id, holds in claims if holds]
    return held


async def claims_by_key(url: str) -> dict[str, list[tuple[str, bool]]]:
    """Returns the requests at each key in their order, each with whether it holds the key."""
    rows = await read_rows(url, select(limits))
    claims = await read_rows(url, select(limit_claims).order_by(limit_claims.c.ticket))
    found = {
        row.key: [(one.request_id, one.held_at is not None) for one in claims if one.limit_id == row.limit_id]
        for row in rows
    }
    for row in rows:
        assert row.claims == len(found[row.key]) > 0, row
    assert sum(len(theirs) for theirs in found.values()) == len(claims), "a claim has no key"
    return found


class Sequences:
    """A RUNNING request whose sequences use keys, as its runner reports it.

    Attributes:
        request_id: The request.
        epoch: Its assignment.
        last: The number of the newest change.
    """

    def __init__(self, request_id: str, epoch: int = 1) -> None:
        self.request_id = request_id
        self.epoch = epoch
        self.last = 0

    @classmethod
    async def started(cls, store: Store, *keys: str, **fields: Any) -> Sequences:
        """Creates a request, perhaps with keys of its own, and assigns it."""
        request = await create_limited(store, *keys, **fields)
        assignment = await store.assign(request.id, RUNNER, expected_state=State.PENDING)
        assert assignment is not None
        return cls(request.id, assignment.epoch)

    def begins(self, *kept: str) -> SequenceLimitChange:
        self.last += 1
        return SequenceLimitChange(number=self.last, begins=True, kept=kept)

    def claim(
        self,
        sequence_id: str,
        *keys: str,
        most: int | dict[str, int] = 1,
        policy: LimitPolicy.ValueType = QUEUE,
        around: Sequence[str] = (),
        after_stop: WaitAfterStop.ValueType = limit_pb2.WAIT_AFTER_STOP_UNKNOWN,
    ) -> SequenceLimitChange:
        self.last += 1
        change = SequenceLimitChange(
            number=self.last,
            sequence_id=sequence_id,
            around=around,
            path=("roll", f"host {sequence_id}"),
            after_stop=after_stop,
        )
        for key in keys:
            change.limits.add(key=key, max=most if isinstance(most, int) else most[key], policy=policy)
        return change

    def release(self, sequence_id: str) -> SequenceLimitChange:
        self.last += 1
        return SequenceLimitChange(number=self.last, sequence_id=sequence_id)

    def report(self, *changes: SequenceLimitChange, **fields: Any) -> ChainReport:
        report = a_report(self.request_id, epoch=self.epoch, **fields)
        report.limit_changes.extend(changes)
        return report

    async def tell(self, store: Store, *changes: SequenceLimitChange, **fields: Any) -> dict[str, str]:
        """Reports changes. Returns how the waits among them have ended: "" or a reason, by sequence."""
        assert not await store.apply_reports(RUNNER.runner_id, [self.report(*changes, **fields)])
        asked = {one.sequence_id: one.number for one in changes if one.limits}
        return await self.outcomes(store, asked)

    async def outcomes(self, store: Store, asked: dict[str, int]) -> dict[str, str]:
        """Returns how waits with these numbers have ended."""
        found = await self._outcomes(store, asked)
        return {one.sequence_id: one.reason for one in found}

    async def errors(self, store: Store, *asked: SequenceLimitChange) -> list[str]:
        """Returns the errors with which waits have ended, in the order in which the sequences asked."""
        found = await self._outcomes(store, {one.sequence_id: one.number for one in asked})
        errors = {one.sequence_id: one.error for one in found}
        return [errors[one.sequence_id] for one in asked]

    async def _outcomes(self, store: Store, asked: dict[str, int]) -> list[SequenceLimitOutcome]:
        assignment = Assignment(request_id=self.request_id, epoch=self.epoch)
        waits = {SequenceWait(self.request_id, one, number): assignment for one, number in asked.items()}
        return await store.limits.outcomes(waits)


async def owners_by_key(url: str) -> dict[str, list[tuple[str, str, bool]]]:
    """Returns the claims of each key in order: the request, the sequence, and whether it holds the key."""
    await claims_by_key(url)
    rows = await read_rows(
        url,
        select(limits.c.key, limit_claims)
        .join(limit_claims, limit_claims.c.limit_id == limits.c.limit_id)
        .order_by(limit_claims.c.ticket),
    )
    found: defaultdict[str, list[tuple[str, str, bool]]] = defaultdict(list)
    for row in rows:
        found[row.key].append((row.request_id, row.sequence_id, row.held_at is not None))
    return dict(found)
