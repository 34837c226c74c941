"""Calls by gRPC are taken in many at a time, each gets its own answer, and a stop leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from server.rpc import CallContext, Gate, GrpcServer, MethodTable, accepting
from spincycle_grpc.errors import NotFoundError
from spincycle_grpc.v1 import request_manager_pb2
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest, CreateResponse
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub

LIMIT = 60.0
CALLS = 64
SERVICE = request_manager_pb2.DESCRIPTOR.services_by_name["RequestManager"]


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

    def _count_turns(self) -> None:
        self._turn += 1
        self._next = asyncio.get_running_loop().call_soon(self._count_turns)

    def end(self) -> None:
        self._next.cancel()


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Servicer, GrpcServer, str]]:
    """A server in this process, its servicer and its address."""
    servicer = Servicer()
    server = GrpcServer([MethodTable(SERVICE, servicer, Gate(10 * CALLS))], "127.0.0.1:0")
    await server.start()
    try:
        async with asyncio.timeout(LIMIT):
            yield servicer, server, f"127.0.0.1:{server.port}"
    finally:
        servicer.end()
        await server.stop(0)


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
        while servicer.began.total() < CALLS:  # noqa: ASYNC110 (the loop turns anyway)
            await asyncio.sleep(0)
        servicer.goes_on.set()
        for call in calls:
            answer = await asyncio.to_thread(call.result)
            assert answer.request.id == "any"
    return max(servicer.began.values())


async def test_calls_that_wait_are_taken_in_together() -> None:
    async with served() as (servicer, _, address):
        assert await begun_together(servicer, address) > 1


async def test_with_another_release_of_the_library_they_are_taken_in_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accepting, "KNOWN_RELEASE", "0.")
    with capture_logs() as logs:
        async with served() as (servicer, _, address):
            assert await begun_together(servicer, address) == 1
    (told,) = [event for event in logs if event["log_level"] == "warning"]
    assert told["grpcio"] == grpc.__version__


async def test_each_call_gets_its_own_answer() -> None:
    async with served() as (servicer, _, address), grpc.aio.insecure_channel(address) as channel:
        servicer.goes_on.set()
        stub: Any = RequestManagerStub(channel)
        names = [f"request-{number}" for number in range(5 * CALLS)]
        answers = await asyncio.gather(*(stub.Create(CreateRequest(type=name)) for name in names))
        assert [answer.request.id for answer in answers] == names


async def test_errors_keep_their_status() -> None:
    async with served() as (_, _, address), grpc.aio.insecure_channel(address) as channel:
        for method, body, code in (
            ("Get", b"", grpc.StatusCode.NOT_FOUND),
            ("Nothing", b"", grpc.StatusCode.UNIMPLEMENTED),
            ("Create", b"\xff", grpc.StatusCode.INVALID_ARGUMENT),
        ):
            call: Any = channel.unary_unary(f"/{SERVICE.full_name}/{method}")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(body)
            assert caught.value.code() == code


async def test_a_call_ends_when_its_caller_gives_up() -> None:
    async with served() as (servicer, _, address), grpc.aio.insecure_channel(address) as channel:
        stub: Any = RequestManagerStub(channel)
        calls = [stub.Create(CreateRequest(type="any")) for _ in range(CALLS)]
        while servicer.began.total() < CALLS:  # noqa: ASYNC110 (the loop turns anyway)
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        while servicer.cancelled < CALLS:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_stop_ends_calls_and_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    with capture_logs() as logs:
        async with served() as (servicer, server, address), grpc.aio.insecure_channel(address) as channel:
            stub: Any = RequestManagerStub(channel)
            calls = [stub.Create(CreateRequest(type="any")) for _ in range(CALLS)]
            while servicer.began.total() < CALLS:  # noqa: ASYNC110 (the loop turns anyway)
                await asyncio.sleep(0)
            await server.stop(0)
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert {error.code() for error in ended if isinstance(error, grpc.aio.AioRpcError)} <= {
                grpc.StatusCode.CANCELLED,
                grpc.StatusCode.UNAVAILABLE,
            }
            assert all(isinstance(error, grpc.aio.AioRpcError) for error in ended)
        while asyncio.all_tasks() - before:  # noqa: ASYNC110 (tasks tell nobody)
            await asyncio.sleep(0.01)
    assert not logs
