"""Requests with limits, and what the database says about them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import select

from spincycle_grpc.v1 import limit_pb2
from spincycle_grpc.v1.limit_pb2 import Limit, LimitPolicy
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.capabilities import Requirement
from spincycle_server.store import IdempotencyKey, Store, creation
from spincycle_server.store.schema import limit_claims, limits
from tests.store.managers import read_rows
from tests.store.samples import a_chain, a_request

QUEUE = limit_pb2.LIMIT_POLICY_QUEUE
REFUSE = limit_pb2.LIMIT_POLICY_REFUSE
REPLACE = limit_pb2.LIMIT_POLICY_REPLACE

NEEDS = Requirement(frozenset({"noop", "nap"}))
"""What the requests need of a runner."""


async def create_limited(
    store: Store,
    *keys: str,
    most: int | dict[str, int] = 1,
    policy: LimitPolicy.ValueType = QUEUE,
    key: IdempotencyKey | None = None,
    may_wait: bool = True,
    event: dict[str, Any] | None = None,
    **fields: Any,
) -> Request:
    """Stores a new request with limits, and returns it."""
    request = a_request(**fields)
    chain = a_chain(request.id)
    for name in keys:
        highest = most if isinstance(most, int) else most[name]
        chain.limits.append(Limit(key=name, max=highest, policy=policy))
    await store.create_request(
        request,
        CreateRequest(type=request.type, user=request.user),
        chain,
        None,
        key,
        requirement=NEEDS,
        may_wait=may_wait,
        event=event,
    )
    return request


def limited_write(*keys: str, most: int = 1) -> creation.CreateRequest:
    """Returns the write that stores a new request with limits, to put it into a batch of writes."""
    request = a_request()
    chain = a_chain(request.id)
    chain.limits.extend(Limit(key=key, max=most, policy=QUEUE) for key in keys)
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
