"""The service config that clients of other languages use: which calls they retry, and how."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import MethodOptions

from spincycle_grpc import contracts
from spincycle_grpc.errors import UnavailableError
from spincycle_grpc.retries import MAX_TRIES
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest, GetRequest, GetResponse
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from tests.limits import ANSWER
from tests.rpc.servers import REQUEST_MANAGER, rpc_error, serving

CONFIG = json.loads(contracts.service_config())


class Restarting:
    """Is unavailable for the first calls of each method."""

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        async def method(*_: object) -> GetResponse:
            self.calls.append(name)
            if self.calls.count(name) <= self._failures:
                raise UnavailableError("the server is shutting down", reason="SHUTTING_DOWN")
            return GetResponse()

        return method


def test_exactly_the_methods_with_an_idempotency_level_are_retried() -> None:
    (policy,) = CONFIG["methodConfig"]
    retried = {(name["service"], name["method"]) for name in policy["name"]}
    assert retried == {
        (REQUEST_MANAGER.full_name, method.name)
        for method in REQUEST_MANAGER.methods
        if method.GetOptions().idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN
    }, "add the method to protos/service_config.json, or remove it"
    assert policy["retryPolicy"]["maxAttempts"] == MAX_TRIES


def test_calls_are_spread_over_the_servers_that_serve() -> None:
    assert CONFIG["loadBalancingConfig"] == [{"round_robin": {}}]
    assert CONFIG["healthCheckConfig"] == {"serviceName": REQUEST_MANAGER.full_name}


@pytest.mark.parametrize(
    ("method", "request_type", "tries"), [("Get", GetRequest, 3), ("Create", CreateRequest, 1)]
)
async def test_a_client_with_the_config_repeats_what_is_safe_to_repeat(
    method: str, request_type: Any, tries: int
) -> None:
    manager = Restarting(failures=2)
    options = [("grpc.service_config", contracts.service_config())]
    async with (
        serving(REQUEST_MANAGER, manager) as (server, address),
        grpc.aio.insecure_channel(address, options=options) as channel,
    ):
        await server.set_serving(True)
        call = getattr(RequestManagerStub(channel), method)(
            request_type(), timeout=ANSWER, wait_for_ready=True
        )
        if tries == 1:
            assert (await rpc_error(call)).code() is grpc.StatusCode.UNAVAILABLE
        else:
            await call
    assert manager.calls == [method] * tries


async def test_a_client_with_the_config_calls_all_servers_that_serve_in_turn() -> None:
    managers = [Restarting(failures=0), Restarting(failures=0)]
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(ANSWER):
        servers = [await stack.enter_async_context(serving(REQUEST_MANAGER, manager)) for manager in managers]
        for server, _ in servers:
            await server.set_serving(True)
        target = "ipv4:" + ",".join(address for _, address in servers)
        options = [("grpc.service_config", contracts.service_config())]
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=options))
        stub = RequestManagerStub(channel)

        async def calls_of_each() -> list[int]:
            for manager in managers:
                manager.calls.clear()
            for _ in range(10):
                await stub.Get(GetRequest(), wait_for_ready=True)
            return [len(manager.calls) for manager in managers]

        while await calls_of_each() != [5, 5]:
            pass  # The client is connecting to both.
        await servers[0][0].set_serving(False)
        while await calls_of_each() != [0, 10]:
            pass  # The client has not seen it yet.
