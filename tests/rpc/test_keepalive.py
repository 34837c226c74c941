"""Clients that ping a server to notice when it is gone, as Go, Java and Envoy do."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from spincycle_server.rpc import grpc_server
from tests.limits import ANSWER
from tests.rpc.ping_counter import counting_pings
from tests.rpc.servers import REQUEST_MANAGER, rpc_error, serving

PING_INTERVAL = 1.0
"""Seconds, the least that gRPC's client allows."""

OPTIONS = (
    ("grpc.keepalive_time_ms", int(PING_INTERVAL * 1000)),
    ("grpc.keepalive_timeout_ms", int(ANSWER * 1000)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


class Manager:
    """Has no method that a test calls."""

    def __getattr__(self, _: str) -> None:
        return None


def watch(channel: grpc.aio.Channel) -> Any:
    """Opens a stream on which the server sends one message, and then nothing."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=""))


async def test_a_client_that_pings_as_often_as_allowed_stays_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_server, "MIN_PING_INTERVAL", PING_INTERVAL / 100)
    async with (
        asyncio.timeout(ANSWER),
        serving(REQUEST_MANAGER, Manager()) as (server, address),
        counting_pings(address) as (proxy, address_of_proxy),
        grpc.aio.insecure_channel(address_of_proxy, options=OPTIONS) as channel,
    ):
        call = watch(channel)
        await call.read()
        answer = asyncio.ensure_future(call.read())
        pinging = asyncio.ensure_future(proxy.until(6))  # The fourth early ping would end the connection.
        await asyncio.wait({answer, pinging}, return_when=asyncio.FIRST_COMPLETED)
        assert not answer.done(), answer.exception()
        await server.set_serving(False)
        assert (await answer).status == health_pb2.HealthCheckResponse.NOT_SERVING
        call.cancel()


async def test_a_client_that_pings_more_often_is_disconnected() -> None:
    async with (
        asyncio.timeout(ANSWER),
        serving(REQUEST_MANAGER, Manager()) as (_, address),
        grpc.aio.insecure_channel(address, options=OPTIONS) as channel,
    ):
        call = watch(channel)
        await call.read()
        error = await rpc_error(call.read())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "Too many pings" in (error.details() or "")


def test_clients_may_ping_every_ten_seconds() -> None:
    assert grpc_server.MIN_PING_INTERVAL <= 5  # Half, because a late ping makes the next one seem early.
