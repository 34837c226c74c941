"""Measures of what clients do besides plain creates: creates that may be repeated, looks, and waits."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import uvloop

from bench.http_load import closed_loop, percentile, request_bytes
from bench.measures import PATH, wait_ended
from spincycle_grpc import AsyncClient
from spincycle_grpc.state import State

if TYPE_CHECKING:
    from bench.cluster import Cluster

Figures = dict[str, Any]

LOOKED_AT = 300
"""The number of requests that clients look at in turn."""


def with_keys(cluster: Cluster, clients: int, seconds: float) -> Figures:
    """Creates requests with three jobs over HTTP, each with an idempotency key of its own."""
    create = request_bytes("POST", PATH, cluster.manager.http, b'{"type": "three-jobs"}')
    head, _, body = create.partition(b"\r\n\r\n")

    def make() -> bytes:
        return b"%s\r\nIdempotency-Key: %s\r\n\r\n%s" % (head, uuid.uuid4().hex.encode(), body)

    def calls() -> list[float]:
        answers = uvloop.run(closed_loop(cluster.manager.http, make, clients=clients, seconds=seconds))
        answers.require(201)
        wait_ended(cluster)
        return answers.seconds

    return _measured(cluster, "creates with an idempotency key", clients, calls)


def looks(cluster: Cluster, clients: int, seconds: float) -> Figures:
    """Reads requests that have ended, one after the other, without their job chains."""
    with httpx.Client(base_url=f"http://{cluster.manager.http}", timeout=30) as http:
        ids = [one["id"] for one in http.get(f"{PATH}?limit={LOOKED_AT}").json()]
    requests = [
        request_bytes("GET", f"{PATH}/{request_id}?view=BASIC", cluster.manager.http) for request_id in ids
    ]
    number = 0

    def make() -> bytes:
        nonlocal number
        number += 1
        return requests[number % len(requests)]

    def calls() -> list[float]:
        answers = uvloop.run(closed_loop(cluster.manager.http, make, clients=clients, seconds=seconds))
        answers.require(200)
        return answers.seconds

    return _measured(cluster, "GETs of a request", clients, calls)


def waits(cluster: Cluster, clients: int, seconds: float) -> Figures:
    """Creates requests with three jobs over gRPC and waits for the end of each, with the Python client."""

    async def load() -> list[float]:
        took: list[float] = []
        end = time.perf_counter() + seconds
        async with AsyncClient(cluster.manager.grpc) as client:

            async def one() -> None:
                while (began := time.perf_counter()) < end:
                    made = await client.create("three-jobs")
                    ended = await client.wait(made.id)
                    assert State(ended.state) is State.COMPLETE, ended
                    took.append(time.perf_counter() - began)

            await asyncio.gather(*(one() for _ in range(clients)))
        return took

    return _measured(cluster, "create and wait with the Python client", clients, lambda: uvloop.run(load()))


def _measured(cluster: Cluster, what: str, clients: int, calls: Callable[[], list[float]]) -> Figures:
    before, began = cluster.cpu_seconds(), time.perf_counter()
    seconds = calls()
    took = time.perf_counter() - began
    used = cluster.cpu_since(before)
    return {
        "what": what,
        "clients": clients,
        "calls_a_second": len(seconds) / took,
        "p50": percentile(seconds, 0.5),
        "p99": percentile(seconds, 0.99),
        "cpu_a_call": {name: one / max(1, len(seconds)) for name, one in used.items()},
    }
