"""gRPC calls are accepted many at a time, each gets its own answer, and a stop leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]
from structlog.testing import capture_logs

from spincycle_grpc.v1.request_manager_pb2 import CreateRequest, CreateResponse
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from spincycle_server.rpc import CallContext, GrpcServer, accepting
from tests.limits import ANSWER, STEP
from tests.rpc.servers import REQUEST_MANAGER, rpc_error, serving

"""Seconds, only against hanging."""

CALLS = 64
ROUNDS = 5
"""A slow machine may need several rounds until many calls arrive while the event loop is blocked."""


class Servicer:
    """Answers creates with the type of the request, and counts how many began in each turn of the loop."""

    def __init__(self) -> None:
        self.began: Counter[int] = Counter()
        self.cancelled = 0
        self.may_end = asyncio.Event()
        self._turn = 0
        self._count_turns()

    def __getattr__(self, _: str) -> Callable[..., Any] | None:
        return None

    async def Create(self, request: CreateRequest, context: CallContext) -> CreateResponse:
        self.began[self._turn] += 1
        response = CreateResponse()
        response.request.id = request.type
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return response

    async def until_begun(self, calls: int) -> None:
        """Waits until this many creates have begun."""
        while self.began.total() < calls:  # noqa: ASYNC110 (it counts turns of the event loop)
            await asyncio.sleep(0)

    def _count_turns(self) -> None:
        self._turn += 1
        self._next = asyncio.get_running_loop().call_soon(self._count_turns)

    def stop_counting(self) -> None:
        self._next.cancel()


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Servicer, GrpcServer, str]]:
    """Runs a server of creates. Yields the servicer, the server and its address."""
    servicer = Servicer()
    try:
        async with serving(REQUEST_MANAGER, servicer) as (server, address), asyncio.timeout(STEP):
            yield servicer, server, address
    finally:
        servicer.stop_counting()


async def begun_together(servicer: Servicer, address: str) -> int:
    """Makes many calls arrive while the event loop is blocked. Returns the most that begin in one turn."""
    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(1) as thread:
        stub = RequestManagerStub(channel)

        def call_all() -> list[Any]:
            grpc.channel_ready_future(channel).result(ANSWER)
            calls = [stub.Create.future(CreateRequest(type="any"), timeout=ANSWER) for _ in range(CALLS)]
            time.sleep(0.3)
            return calls

        calls = thread.submit(call_all).result()  # This blocks the event loop until the calls have arrived.
        await servicer.until_begun(CALLS)
        servicer.may_end.set()
        for call in calls:
            answer = await asyncio.to_thread(call.result)
            assert answer.request.id == "any"
    return max(servicer.began.values())


async def test_waiting_calls_are_accepted_together() -> None:
    most = 0
    for _ in range(ROUNDS):
        async with served() as (servicer, _, address):
            most = max(most, await begun_together(servicer, address))
        # grpc.aio alone accepts one call in a turn, or two if one is late: far fewer than this.
        if most >= CALLS // 8:
            return
    pytest.fail(f"at most {most} calls began in one turn")


def test_the_lock_file_names_the_known_version() -> None:
    """Before you lock a new version, read how it defines the names that `accepting` uses."""
    lock = (Path(__file__).parents[2] / "requirements.lock").read_text()
    assert f"\ngrpcio=={accepting.KNOWN_VERSION} " in lock


@pytest.fixture
async def inner() -> AsyncIterator[object]:
    """The server of the C core that a server of grpc.aio holds."""
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
        servicer.may_end.set()
        stub: Any = RequestManagerStub(channel)
        names = [f"request-{number}" for number in range(5 * CALLS)]
        answers = await asyncio.gather(*(stub.Create(CreateRequest(type=name)) for name in names))
        assert [answer.request.id for answer in answers] == names


async def test_a_call_ends_when_its_caller_gives_up() -> None:
    async with served() as (servicer, _, address), grpc.aio.insecure_channel(address) as channel:
        stub: Any = RequestManagerStub(channel)
        calls = [stub.Create(CreateRequest(type="any")) for _ in range(CALLS)]
        await servicer.until_begun(CALLS)
        for call in calls:
            call.cancel()
        while servicer.cancelled < CALLS:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_stop_without_grace_ends_calls_and_leaves_no_task_and_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = asyncio.all_tasks()
    with capture_logs() as logs:
        async with served() as (servicer, server, address), grpc.aio.insecure_channel(address) as channel:
            stub: Any = RequestManagerStub(channel)
            calls = [stub.Create(CreateRequest(type="any")) for _ in range(CALLS)]
            await servicer.until_begun(CALLS)
            await server.stop(0)
            for call in calls:
                assert (await rpc_error(call)).code() in {
                    grpc.StatusCode.CANCELLED,
                    grpc.StatusCode.UNAVAILABLE,
                }
            await channel.close()
            while asyncio.all_tasks() - before:  # noqa: ASYNC110 (tasks have no event)
                await asyncio.sleep(0.01)
    assert not logs
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_calls_that_began_before_a_stop_are_answered() -> None:
    async with served() as (servicer, server, address), grpc.aio.insecure_channel(address) as channel:
        servicer.may_end.set()
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
        await server.stop(STEP)
        ended = await asyncio.gather(*callers)
        assert sum(answered for answered, _ in ended) == servicer.began.total()
        assert {code for _, code in ended} <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
