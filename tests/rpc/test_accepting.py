"""Calls by gRPC are taken in many at a time, each gets its own answer, and a stop leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from grpc._cython import cygrpc  # type: ignore[attr-defined]
from structlog.testing import capture_logs

from spincycle_grpc.caller import Caller
from spincycle_grpc.errors import NotFoundError, UnauthenticatedError
from spincycle_grpc.rpc_errors import error_from_rpc
from spincycle_grpc.v1 import request_manager_pb2, runner_reports_pb2
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest, CreateResponse
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from spincycle_grpc.v1.runner_reports_pb2 import ReportRequest, ReportResponse
from spincycle_server.rpc import CallContext, Gate, GrpcServer, MethodTable, accepting
from spincycle_server.rpc.context import Authenticator

LIMIT = 60.0
CALLS = 64
REPORTS = runner_reports_pb2.DESCRIPTOR.services_by_name["RunnerReports"]
SERVICE = request_manager_pb2.DESCRIPTOR.services_by_name["RequestManager"]


class Nobody:
    """Knows nobody."""

    async def authenticate(self, metadata: object, peer: str) -> Caller:
        raise UnauthenticatedError("say who you are", reason="WHO_ARE_YOU")


class Reports:
    """Answers each report."""

    async def Report(  # noqa: N802
        self, requests: AsyncIterator[ReportRequest], context: CallContext
    ) -> AsyncIterator[ReportResponse]:
        async for _ in requests:
            yield ReportResponse()

    def __getattr__(self, _: str) -> None:
        return None


class Servicer:
    """Answers creates with what they ask for, and counts how many began in which turn of the loop."""

    def __init__(self) -> None:
        self.began: Counter[int] = Counter()
        self.cancelled = 0
        self.goes_on = asyncio.Event()
        self._turn = 0
        self._count_turns()

    def __getattr__(self, _: str) -> Callable[..., Any]:
        return self._find_nothing

    async def Create(self, request: CreateRequest, context: CallContext) -> CreateResponse:  # noqa: N802
        self.began[self._turn] += 1
        response = CreateResponse()
        response.request.id = request.type
        try:
            await self.goes_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return response

    async def _find_nothing(self, *_: object) -> None:
        raise NotFoundError("nothing is here", reason="NOTHING")

    async def until_begun(self, calls: int) -> None:
        """Returns when so many creates have begun."""
        while self.began.total() < calls:  # noqa: ASYNC110 (the loop turns anyway)
            await asyncio.sleep(0)

    def _count_turns(self) -> None:
        self._turn += 1
        self._next = asyncio.get_running_loop().call_soon(self._count_turns)

    def end(self) -> None:
        self._next.cancel()


@asynccontextmanager
async def served(
    service: ServiceDescriptor = SERVICE,
    servicer: object = None,
    *,
    gate: Gate | None = None,
    authenticator: Authenticator | None = None,
) -> AsyncIterator[tuple[Servicer, GrpcServer, str]]:
    """A server in this process, a servicer of creates and its address."""
    creates = Servicer()
    table = MethodTable(service, servicer or creates, gate or Gate(10 * CALLS), authenticator)
    server = GrpcServer([table], "127.0.0.1:0")
    await server.start()
    try:
        async with asyncio.timeout(LIMIT):
            yield creates, server, f"127.0.0.1:{server.port}"
    finally:
        creates.end()
        await server.stop(0)


async def failed(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """Returns the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def begun_together(servicer: Servicer, address: str) -> int:
    """Has many calls wait before the server looks. Returns the most that begin in one turn."""
    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(1) as thread:
        stub = RequestManagerStub(channel)

        def call_all() -> list[Any]:
            grpc.channel_ready_future(channel).result(LIMIT)
            calls = [stub.Create.future(CreateRequest(type="any"), timeout=LIMIT) for _ in range(CALLS)]
            time.sleep(0.3)
            return calls

        calls = thread.submit(call_all).result()  # The loop stands still until they have arrived.
        await servicer.until_begun(CALLS)
        servicer.goes_on.set()
        for call in calls:
            answer = await asyncio.to_thread(call.result)
            assert answer.request.id == "any"
    return max(servicer.began.values())


async def test_calls_that_wait_are_taken_in_together() -> None:
    async with served() as (servicer, _, address):
        # One at a time it is one a turn, or two when the message of one is late: far from this.
        assert await begun_together(servicer, address) >= CALLS // 8


def test_the_lock_file_names_the_known_version() -> None:
    """Before you lock a new version, read how it defines the names that `accepting` uses."""
    lock = (Path(__file__).parents[2] / "requirements.lock").read_text()
    assert f"\ngrpcio=={accepting.KNOWN_VERSION} " in lock


@pytest.fixture
async def inner() -> AsyncIterator[object]:
    """What a server of grpc.aio holds."""
    server = grpc.aio.server()
    yield server._server  # type: ignore[attr-defined]
    await server.stop(None)


@pytest.mark.parametrize("version", ["1.85.0", "1.85.99"])
async def test_patch_releases_of_the_known_version_are_used(
    version: str, inner: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc, "__version__", version)
    assert not accepting.unusable_because(inner)


@pytest.mark.parametrize("version", ["1.84.1", "1.86.0", "2.85.1"])
async def test_with_another_version_calls_are_accepted_one_at_a_time_and_nobody_is_warned(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc, "__version__", version)
    with capture_logs() as logs:
        async with served() as (servicer, _, address):
            assert await begun_together(servicer, address) < CALLS // 8
    (told,) = [event for event in logs if event["log_level"] != "debug"]
    assert told["log_level"] == "info"
    assert told["reason"] == f"grpcio {version} is not a patch release of 1.85"


@pytest.mark.parametrize(
    "name", ["_MethodResolver", "_RequestCallError", "_handle_rpc", "_schedule_rpc_coro"]
)
@pytest.mark.parametrize("stand_in", [None, lambda other: None])
async def test_private_names_that_are_missing_or_differ_are_not_used(
    name: str, stand_in: object, inner: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cygrpc, name, stand_in)
    assert f"cygrpc.{name}" in accepting.unusable_because(inner)


def test_a_server_of_another_class_is_not_used() -> None:
    assert "AioServer" in accepting.unusable_because(None)


async def test_each_call_gets_its_own_answer() -> None:
    async with served() as (servicer, _, address), grpc.aio.insecure_channel(address) as channel:
        servicer.goes_on.set()
        stub: Any = RequestManagerStub(channel)
        names = [f"request-{number}" for number in range(5 * CALLS)]
        answers = await asyncio.gather(*(stub.Create(CreateRequest(type=name)) for name in names))
        assert [answer.request.id for answer in answers] == names


async def test_errors_keep_their_status() -> None:
    async with served() as (_, _, address), grpc.aio.insecure_channel(address) as channel:
        for method, code in (("Get", grpc.StatusCode.NOT_FOUND), ("Nothing", grpc.StatusCode.UNIMPLEMENTED)):
            call: Any = channel.unary_unary(f"/{SERVICE.full_name}/{method}")
            error = await failed(call(b""))
            assert error.code() == code


@pytest.mark.parametrize(
    ("gate", "authenticator", "reason"),
    [
        (Gate(1), None, "BAD_MESSAGE"),
        (Gate(0), None, "TOO_MANY_CALLS"),
        (Gate(1), Nobody(), "WHO_ARE_YOU"),
    ],
)
async def test_bytes_that_are_no_message_are_refused_after_the_gate_and_the_caller_have_been_looked_at(
    gate: Gate, authenticator: Authenticator | None, reason: str
) -> None:
    with capture_logs() as logs:
        async with (
            served(gate=gate, authenticator=authenticator) as (_, _, address),
            grpc.aio.insecure_channel(address) as channel,
        ):
            call: Any = channel.unary_unary(f"/{SERVICE.full_name}/Create")
            error = await failed(call(b"\xff"))
            assert error_from_rpc(error, address).reason == reason
    assert reason == "TOO_MANY_CALLS" or [event["reason"] for event in logs] == [reason]


async def test_a_stream_ends_at_bytes_that_are_no_message() -> None:
    async def bodies() -> AsyncIterator[bytes]:
        yield b""
        yield b"\xff"

    async with (
        served(REPORTS, Reports()) as (_, _, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        method: Any = channel.stream_stream(f"/{REPORTS.full_name}/Report")
        call = method(bodies())
        assert await call.read() == b""
        error = await failed(call.read())
        assert error_from_rpc(error, address).reason == "BAD_MESSAGE"
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_call_ends_when_its_caller_gives_up() -> None:
    async with served() as (servicer, _, address), grpc.aio.insecure_channel(address) as channel:
        stub: Any = RequestManagerStub(channel)
        calls = [stub.Create(CreateRequest(type="any")) for _ in range(CALLS)]
        await servicer.until_begun(CALLS)
        for call in calls:
            call.cancel()
        while servicer.cancelled < CALLS:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_stop_ends_calls_and_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    before = asyncio.all_tasks()
    with capture_logs() as logs:
        async with served() as (servicer, server, address), grpc.aio.insecure_channel(address) as channel:
            stub: Any = RequestManagerStub(channel)
            calls = [stub.Create(CreateRequest(type="any")) for _ in range(CALLS)]
            await servicer.until_begun(CALLS)
            await server.stop(0)
            for call in calls:
                assert (await failed(call)).code() in {
                    grpc.StatusCode.CANCELLED,
                    grpc.StatusCode.UNAVAILABLE,
                }
            await channel.close()
            while asyncio.all_tasks() - before:  # noqa: ASYNC110 (tasks tell nobody)
                await asyncio.sleep(0.01)
    assert not logs
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_call_that_was_begun_before_a_stop_is_answered() -> None:
    async with served() as (servicer, server, address), grpc.aio.insecure_channel(address) as channel:
        servicer.goes_on.set()
        stub: Any = RequestManagerStub(channel)

        async def call_until_told() -> tuple[int, grpc.StatusCode]:
            answered = 0
            while True:
                try:
                    await stub.Create(CreateRequest(type="any"))
                except grpc.aio.AioRpcError as error:
                    return answered, error.code()
                answered += 1

        callers = [asyncio.create_task(call_until_told()) for _ in range(CALLS)]
        await servicer.until_begun(5 * CALLS)
        await server.stop(LIMIT)
        ended = await asyncio.gather(*callers)
        assert sum(answered for answered, _ in ended) == servicer.began.total()
        assert {code for _, code in ended} <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
