"""The health service refuses requests that are too large, too late or not valid, and too many streams."""

from __future__ import annotations

import contextlib
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME
from structlog.testing import capture_logs

from spincycle_grpc.rpc_errors import error_from_rpc
from spincycle_server.rpc import health
from tests.limits import ANSWER
from tests.rpc.servers import REQUEST_MANAGER, rpc_error, serving


class Nothing:
    def __getattr__(self, _: str) -> None:
        return None


@pytest.mark.parametrize("method", ["Check", "Watch"])
@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x80\x60" + b"a" * 12_288])
async def test_a_request_that_is_too_large_or_not_valid_is_refused_without_a_line_in_the_log(
    method: str, data: bytes
) -> None:
    with capture_logs() as logs:
        async with (
            serving(REQUEST_MANAGER, Nothing()) as (_, address),
            grpc.aio.insecure_channel(address) as channel,
        ):
            path = f"/{SERVICE_NAME}/{method}"
            if method == "Check":
                unary: Any = channel.unary_unary(path)
                error = await rpc_error(unary(data, timeout=ANSWER))
            else:
                stream: Any = channel.unary_stream(path)
                error = await rpc_error(stream(data, timeout=ANSWER).read())
    assert error_from_rpc(error, address).reason == "BAD_MESSAGE"
    assert logs == []


async def test_a_request_that_does_not_arrive_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "REQUEST_TIMEOUT", 0.1)
    async with (
        serving(REQUEST_MANAGER, Nothing()) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        method: Any = channel.stream_unary(f"/{SERVICE_NAME}/Check")
        call = method(timeout=ANSWER)  # It may write messages later, but does not.
        error = await rpc_error(call)
    assert error_from_rpc(error, address).reason == "BAD_MESSAGE"


async def test_a_watch_beyond_the_limit_is_refused_until_another_one_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "MAX_WATCHES", 1)
    async with (
        serving(REQUEST_MANAGER, Nothing()) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        first = stub.Watch(health_pb2.HealthCheckRequest(), timeout=ANSWER)
        await first.read()
        error = await rpc_error(stub.Watch(health_pb2.HealthCheckRequest(), timeout=ANSWER).read())
        assert error_from_rpc(error, address).reason == "TOO_MANY_HEALTH_STREAMS"
        first.cancel()
        assert await _first_of_a_later_watch(stub)


async def _first_of_a_later_watch(stub: Any) -> object:
    while True:
        call = stub.Watch(health_pb2.HealthCheckRequest(), timeout=ANSWER)
        with contextlib.suppress(grpc.aio.AioRpcError):
            return await call.read()
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("service", ["", REQUEST_MANAGER.full_name, "no.such.Service"])
@pytest.mark.parametrize("serving_before", [True, False])
async def test_watches_end_after_their_last_answer_when_the_server_stops(
    service: str, serving_before: bool
) -> None:
    states = health_pb2.HealthCheckResponse
    async with (
        serving(REQUEST_MANAGER, Nothing()) as (server, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        await server.set_serving(serving_before)
        stub: Any = health_pb2_grpc.HealthStub(channel)
        calls = [stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=ANSWER) for _ in range(3)]
        first = [(await call.read()).status for call in calls]
        await server.stop(10 * ANSWER)  # The calls would last until their own deadline.
        later = [await _statuses(call) for call in calls]
        codes = [await call.code() for call in calls]
    if service == "no.such.Service":
        expected: tuple[Any, list[Any]] = (states.SERVICE_UNKNOWN, [])
    elif serving_before:
        expected = (states.SERVING, [states.NOT_SERVING])
    else:
        expected = (states.NOT_SERVING, [])
    assert list(zip(first, later, strict=True)) == [expected] * 3
    assert codes == [grpc.StatusCode.OK] * 3


async def _statuses(call: Any) -> list[Any]:
    """Returns the further answers of a Watch, until its end."""
    found = []
    while (answer := await call.read()) is not grpc.aio.EOF:
        found.append(answer.status)
    return found
