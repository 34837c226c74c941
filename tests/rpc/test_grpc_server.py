"""The gRPC server, called over the loopback interface: errors, health and shutdown."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from spincycle_grpc.errors import (
    ERROR_CLASSES,
    ResourceExhaustedError,
    SpinCycleError,
    UnauthenticatedError,
    UnavailableError,
)
from spincycle_grpc.rpc_errors import error_from_rpc
from spincycle_grpc.v1.request_manager_pb2 import (
    CreateRequest,
    CreateResponse,
    GetRequest,
    WatchRequest,
    WatchResponse,
)
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from spincycle_grpc.v1.runner_reports_pb2 import ReportRequest, ReportResponse
from spincycle_server.identity import Authentication, Credentials, Identity
from spincycle_server.rpc import CallContext, Gate, GrpcServer, MethodTable, stream_sends
from tests.limits import ANSWER, STEP
from tests.rpc.servers import REQUEST_MANAGER, RUNNER_REPORTS, rpc_error, serving

ALONE = (("grpc.use_local_subchannel_pool", 1),)
"""Options of a channel with connections of its own."""

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The beginning of each connection: the text of RFC 9113, section 3.4, and empty settings."""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Manager:
    """Answers creates with the type of the request, and fails all other calls with one error."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.contexts: list[CallContext] = []

    def __getattr__(self, _: str) -> Callable[..., Any]:
        return self._fail

    async def Create(self, request: CreateRequest, context: CallContext) -> CreateResponse:
        self.contexts.append(context)
        response = CreateResponse()
        response.request.id = request.type
        return response

    async def _fail(self, *_: object) -> None:
        assert self._error is not None
        raise self._error


class SlowManager:
    """Answers Create calls when the test sets `may_end`."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.is_cancelled = asyncio.Event()

    def __getattr__(self, _: str) -> None:
        return None

    async def Create(self, request: CreateRequest, context: CallContext) -> CreateResponse:
        self.has_begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.is_cancelled.set()
            raise
        return CreateResponse()


class Reports:
    """Answers each report. Fails at the end of a stream if a test says so."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def __getattr__(self, _: str) -> None:
        return None

    async def Report(
        self, requests: AsyncIterator[ReportRequest], context: CallContext
    ) -> AsyncIterator[ReportResponse]:
        async for _ in requests:
            yield ReportResponse()
        if self._error is not None:
            raise self._error


class FullReports:
    """Refuses each stream of reports before it reads from it."""

    def __getattr__(self, _: str) -> None:
        return None

    async def Report(
        self, requests: AsyncIterator[ReportRequest], context: CallContext
    ) -> AsyncIterator[ReportResponse]:
        raise ResourceExhaustedError("try another server", reason="TOO_MANY_STREAMS")
        yield


class Flood:
    """Answers Watch with large messages without end."""

    def __init__(self) -> None:
        self.sent = 0
        self.is_closed = asyncio.Event()

    def __getattr__(self, _: str) -> None:
        return None

    async def Watch(self, request: WatchRequest, context: CallContext) -> AsyncIterator[WatchResponse]:
        try:
            while True:
                self.sent += 1
                yield WatchResponse(cursor="x" * 1_000_000)
        finally:
            self.is_closed.set()


class Nobody:
    """Identifies nobody."""

    hint = "a token"

    async def identify(self, credentials: Credentials) -> Identity:
        raise UnauthenticatedError("send a token", reason="NO_TOKEN")


async def test_a_method_gets_metadata_and_peer() -> None:
    manager = Manager()
    async with (
        serving(REQUEST_MANAGER, manager) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = RequestManagerStub(channel)
        metadata = (("authorization", "Bearer x"), ("trace-bin", b"\x00\xff"))
        answer = await stub.Create(CreateRequest(type="nap"), metadata=metadata, timeout=ANSWER)
    assert answer.request.id == "nap"
    (context,) = manager.contexts
    assert context.transport == "grpc"
    assert not context.is_throttled
    assert context.credentials.metadata["authorization"] == "Bearer x"
    assert "trace-bin" not in context.credentials.metadata
    assert context.peer.startswith("ipv4:127.0.0.1:")


@pytest.mark.parametrize("error_class", ERROR_CLASSES.values())
async def test_an_error_reaches_the_client_with_status_reason_message_and_request_id(
    error_class: type[SpinCycleError],
) -> None:
    raised = error_class("the pot is empty: add water", reason="POT_EMPTY", request_id="abc")
    async with (
        serving(REQUEST_MANAGER, Manager(raised)) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = RequestManagerStub(channel)
        error = await rpc_error(stub.Get(GetRequest(), timeout=ANSWER))
    assert error.code().value[0] == raised.status.grpc_code
    assert error.details() == raised.message
    received = error_from_rpc(error, address)
    assert type(received) is error_class
    assert (received.reason, received.message, received.request_id) == (
        "POT_EMPTY",
        "the pot is empty: add water",
        "abc",
    )


async def test_an_unexpected_exception_reaches_the_client_as_internal_without_its_text() -> None:
    async with (
        serving(REQUEST_MANAGER, Manager(ValueError("secret of the code"))) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = RequestManagerStub(channel)
        with capture_logs() as logs:
            error = await rpc_error(stub.Get(GetRequest(request_id="abc"), timeout=ANSWER))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in (error.details() or "")
    assert error_from_rpc(error, address).request_id == "abc"
    assert [event["log_level"] for event in logs] == ["error"]


async def test_an_unknown_method_is_unimplemented() -> None:
    async with (
        serving(REQUEST_MANAGER, Manager()) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        method: Any = channel.unary_unary(f"/{REQUEST_MANAGER.full_name}/Nothing")
        error = await rpc_error(method(b"", timeout=ANSWER))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("gate", "authentication", "reason"),
    [
        (Gate(1), None, "BAD_MESSAGE"),
        (Gate(0), None, "TOO_MANY_CALLS"),
        (Gate(1), Authentication([Nobody()]), "NO_TOKEN"),
    ],
)
async def test_a_request_that_cannot_be_parsed_passes_the_gate_and_authentication_first(
    gate: Gate, authentication: Authentication | None, reason: str
) -> None:
    with capture_logs() as logs:
        async with (
            serving(REQUEST_MANAGER, Manager(), gate=gate, authentication=authentication) as (_, address),
            grpc.aio.insecure_channel(address) as channel,
        ):
            method: Any = channel.unary_unary(f"/{REQUEST_MANAGER.full_name}/Create")
            error = await rpc_error(method(b"\xff", timeout=ANSWER))
    received = error_from_rpc(error, address)
    assert received.reason == reason
    if reason == "BAD_MESSAGE":
        assert "not a valid spincycle.v1.CreateRequest" in received.message
    assert reason == "TOO_MANY_CALLS" or [event["reason"] for event in logs] == [reason]


async def test_a_caller_is_refused_before_the_message_of_the_call_is_received() -> None:
    may_send = asyncio.Event()

    async def messages() -> AsyncIterator[bytes]:
        await may_send.wait()
        yield b""

    async with (
        serving(REQUEST_MANAGER, Manager(), authentication=Authentication([Nobody()])) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        method: Any = channel.stream_unary(f"/{REQUEST_MANAGER.full_name}/Create")
        error = await rpc_error(method(messages(), timeout=ANSWER))
    assert error_from_rpc(error, address).reason == "NO_TOKEN"


async def test_a_compressed_message_is_refused_because_it_could_grow_to_any_size(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        serving(REQUEST_MANAGER, Manager(), authentication=Authentication([Nobody()])) as (_, address),
        grpc.aio.insecure_channel(address, compression=grpc.Compression.Gzip) as channel,
    ):
        stub: Any = RequestManagerStub(channel)
        error = await rpc_error(stub.Create(CreateRequest(type="a" * 10_000), timeout=ANSWER))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "gzip" in (error.details() or "")
    assert [record.message for record in caplog.records if "Compression" not in record.message] == []


async def test_a_stream_ends_at_a_request_that_cannot_be_parsed() -> None:
    async def bodies() -> AsyncIterator[bytes]:
        yield b""
        yield b"\xff"

    async with (
        serving(RUNNER_REPORTS, Reports()) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
        asyncio.timeout(ANSWER),
    ):
        method: Any = channel.stream_stream(f"/{RUNNER_REPORTS.full_name}/Report")
        call = method(bodies())
        assert await call.read() == b""
        error = await rpc_error(call.read())
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error_from_rpc(error, address).reason == "BAD_MESSAGE"


async def test_a_stream_that_is_refused_before_its_first_request_leaves_nothing_behind() -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        async with (
            serving(RUNNER_REPORTS, FullReports()) as (_, address),
            grpc.aio.insecure_channel(address) as channel,
        ):
            method: Any = channel.stream_stream(f"/{RUNNER_REPORTS.full_name}/Report")
            error = await rpc_error(method(timeout=ANSWER).read())
        gc.collect()
    assert error_from_rpc(error, address).reason == "TOO_MANY_STREAMS"
    assert [str(one.message) for one in found] == []


async def test_an_error_of_a_stream_reaches_the_client_after_the_answers() -> None:
    raised = UnavailableError("the server is shutting down", reason="SHUTTING_DOWN")

    async def bodies() -> AsyncIterator[bytes]:
        yield b""

    async with (
        serving(RUNNER_REPORTS, Reports(raised)) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
        asyncio.timeout(ANSWER),
    ):
        method: Any = channel.stream_stream(f"/{RUNNER_REPORTS.full_name}/Report")
        call = method(bodies())
        assert await call.read() == b""
        error = await rpc_error(call.read())
    received = error_from_rpc(error, address)
    assert (type(received), received.reason) == (UnavailableError, "SHUTTING_DOWN")


async def test_a_call_whose_deadline_passes_is_cancelled() -> None:
    manager = SlowManager()
    async with (
        serving(REQUEST_MANAGER, manager) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
        asyncio.timeout(ANSWER),
    ):
        stub: Any = RequestManagerStub(channel)
        deadline = 0.5
        while not manager.has_begun.is_set():  # A slow machine may not begin the call before its deadline.
            error = await rpc_error(stub.Create(CreateRequest(), timeout=deadline))
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            deadline *= 2
        await manager.is_cancelled.wait()


async def health_of(channel: grpc.aio.Channel, service: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=ANSWER)
    status: int = answer.status
    return status


async def test_health_says_whether_the_server_and_its_services_serve() -> None:
    async with (
        serving(REQUEST_MANAGER, Manager()) as (server, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        for is_serving, status in ((True, SERVING), (False, NOT_SERVING), (True, SERVING)):
            await server.set_serving(is_serving)
            assert await health_of(channel, "") == status
            assert await health_of(channel, REQUEST_MANAGER.full_name) == status
        error = await rpc_error(health_of(channel, "no.such.Service"))
        assert error.code() == grpc.StatusCode.NOT_FOUND


async def test_a_client_that_watches_health_is_told_of_each_change() -> None:
    async with (
        serving(REQUEST_MANAGER, Manager()) as (server, address),
        grpc.aio.insecure_channel(address) as channel,
        asyncio.timeout(ANSWER),
    ):
        await server.set_serving(True)
        stub: Any = health_pb2_grpc.HealthStub(channel)
        call = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await call.read()).status == SERVING
        await server.set_serving(False)
        assert (await call.read()).status == NOT_SERVING
        call.cancel()


async def test_a_call_in_flight_is_answered_within_the_grace_of_a_stop() -> None:
    manager = SlowManager()
    async with (
        serving(REQUEST_MANAGER, manager) as (server, address),
        grpc.aio.insecure_channel(address) as channel,
        asyncio.timeout(ANSWER),
    ):
        stub: Any = RequestManagerStub(channel)
        call = stub.Create(CreateRequest())
        await manager.has_begun.wait()
        stopping = asyncio.create_task(server.stop(ANSWER))
        await until_refused(address)
        assert not stopping.done()
        manager.may_end.set()
        assert await call == CreateResponse()
        await stopping


async def until_refused(address: str) -> None:
    """Calls on new connections until the server does not accept them."""
    code = grpc.StatusCode.OK
    while code is not grpc.StatusCode.UNAVAILABLE:
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = RequestManagerStub(channel)
            code = (await rpc_error(stub.Create(CreateRequest(), timeout=0.2))).code()


async def test_a_server_cannot_listen_on_an_address_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = GrpcServer([MethodTable(REQUEST_MANAGER, Manager(), Gate(1))], address)
        with pytest.raises(UnavailableError) as caught:
            await server.start()
        await server.stop(0)
    assert caught.value.reason == "ADDRESS_IN_USE"
    assert address in caught.value.message


async def test_a_connection_beyond_the_limit_is_closed_until_another_one_ends() -> None:
    async with serving(REQUEST_MANAGER, Manager(), max_connections=1) as (_, address):
        async with grpc.aio.insecure_channel(address, options=ALONE) as channel:
            stub: Any = RequestManagerStub(channel)
            await stub.Create(CreateRequest(), timeout=ANSWER)
            assert not await _is_greeted(address)
        async with grpc.aio.insecure_channel(address, options=ALONE) as channel:
            stub = RequestManagerStub(channel)
            await stub.Create(CreateRequest(), timeout=ANSWER, wait_for_ready=True)


async def _is_greeted(address: str) -> bool:
    """Whether the server answers a new connection, and does not just close it.

    It is a plain socket. A channel of gRPC that is closed while it connects again can keep its connection
    open, which then counts.
    """
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(STEP):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(HTTP2_PREFACE)
            return bool(await reader.read(1))
        except ConnectionError:
            return False
        finally:
            writer.close()


async def _count(messages: AsyncIterator[object]) -> int:
    return len([message async for message in messages])


async def test_the_stream_of_a_client_that_does_not_read_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_sends, "SEND_TIMEOUT", 0.3)
    flood = Flood()
    async with (
        serving(REQUEST_MANAGER, flood) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = RequestManagerStub(channel)
        call = stub.Watch(WatchRequest(), timeout=ANSWER)
        async with asyncio.timeout(STEP):
            await flood.is_closed.wait()
        error = await rpc_error(_count(call))
    assert error_from_rpc(error, "the server").reason == "STREAM_NOT_READ"
    assert flood.sent < 100


async def test_a_client_that_leaves_a_stream_ends_the_method() -> None:
    flood = Flood()
    async with (
        serving(REQUEST_MANAGER, flood) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = RequestManagerStub(channel)
        call = stub.Watch(WatchRequest(), timeout=ANSWER)
        await anext(aiter(call))
        call.cancel()
        async with asyncio.timeout(STEP):
            await flood.is_closed.wait()
