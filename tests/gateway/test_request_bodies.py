"""The memory of all request bodies is limited, and bodies over the limit are refused."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import select
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from spincycle_grpc.errors import ResourceExhaustedError
from spincycle_grpc.v1 import request_manager_pb2, runner_reports_pb2
from spincycle_server.gateway.app import GatewayApp
from spincycle_server.gateway.content_coding import decoded
from spincycle_server.gateway.errors import ErrorFormat, HttpError
from spincycle_server.large_work import LARGE, run_large
from spincycle_server.rpc import Gate, InputLimits, MethodTable
from spincycle_server.rpc.body_budget import BodyBudget
from tests.e2e.processes import ServerProcess, running
from tests.gateway.conftest import MAX_BODY
from tests.gateway.wire import JSON, Connection, request
from tests.limits import ANSWER, REQUEST_END, STEP

PATH = "/api/v1/requests"
PART, REST = 900_000, 50_000
NO_TYPE = request("POST", PATH, JSON, body=b"{}")


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A Request Manager with memory for two bodies of the maximum size."""
    environment = {"SPINCYCLE_SERVER_MAX_BODY": str(MAX_BODY), "SPINCYCLE_SERVER_MAX_BODIES": "1"}
    directory = tmp_path_factory.mktemp("manager")
    with running(
        "request-manager", "--http=127.0.0.1:0", directory=directory, environment=environment
    ) as server:
        yield server


@contextlib.contextmanager
def opened(server: ServerProcess, count: int) -> Iterator[list[Connection]]:
    """Opens connections and sends most of a body on each."""
    head = request("POST", PATH, JSON, f"Content-Length: {PART + REST}")
    with contextlib.ExitStack() as stack:
        address = server.address("request-manager", "http")
        connections = [stack.enter_context(Connection(address)) for _ in range(count)]
        for connection in connections:
            connection.send(head + b" " * PART)
        yield connections


def answered(connections: list[Connection]) -> list[Connection]:
    """Waits for an answer. Returns the connections that have one."""
    sockets = {connection.socket: connection for connection in connections}
    readable, _, _ = select.select(list(sockets), [], [], ANSWER)
    return [sockets[one] for one in readable]


def test_a_body_without_room_gets_429_and_the_others_are_read(crowded: ServerProcess) -> None:
    address = crowded.address("request-manager", "http")
    with opened(crowded, 3) as connections:
        (refused,) = answered(connections)
        answer = refused.answer()
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert "2000000 bytes" in json.loads(answer.body)["message"]
        with Connection(address) as another:  # A body that comes in one piece needs no room.
            another.send(NO_TYPE)
            assert another.answer().status == 400
        for connection in connections:
            connection.send(b" " * REST)
            if connection is not refused:
                assert connection.answer().status == 400
        refused.send(request("POST", PATH, JSON, body=b" " * (PART + REST)))  # Now there is room again.
        assert refused.answer().status == 400
    assert "TOO_MANY_BODIES" in crowded.wait_for("calls refused")["calls"]


class Upload:
    """A POST to the app. The test decides when each part of its body arrives."""

    def __init__(self, app: GatewayApp, *headers: tuple[bytes, bytes], path: str = PATH) -> None:
        self._parts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._is_hungry = asyncio.Event()
        self._status = 0
        self.body = b""
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), *headers],
        }
        self._call = asyncio.create_task(app(scope, self._receive, self._send))

    async def part(self, body: bytes) -> None:
        """Sends a part. Returns when the app waits for the next part, and so has counted this one."""
        self._is_hungry.clear()
        self._parts.put_nowait({"type": "http.request", "body": body, "more_body": True})
        await self._is_hungry.wait()

    async def end(self, body: bytes) -> int:
        """Sends the last part. Returns the status of the answer."""
        self._parts.put_nowait({"type": "http.request", "body": body, "more_body": False})
        await self._call
        return self._status

    async def _receive(self) -> Mapping[str, Any]:
        if self._parts.empty():
            self._is_hungry.set()
        return await self._parts.get()

    async def _send(self, event: Mapping[str, Any]) -> None:
        self._status = event.get("status", self._status)
        self.body += event.get("body", b"")


class Uncalled:
    """A servicer whose methods are never called, because the bodies are not valid JSON."""

    def __getattr__(self, _: str) -> None:
        return None


async def test_a_decompressed_body_needs_room_too() -> None:
    # Over sockets, the test could not tell when the other bodies have arrived: one of them might be refused.
    service = request_manager_pb2.DESCRIPTOR.services_by_name["RequestManager"]
    refused: list[str] = []
    app = GatewayApp(
        [MethodTable(service, Uncalled(), Gate(10))],
        title="Here",
        error_format=ErrorFormat.FULL,
        limits=InputLimits.of(max_body=MAX_BODY, max_bodies=2 * MAX_BODY, max_values=500_000),
        on_refused=lambda error: refused.append(error.reason),
    )
    bomb = gzip.compress(b" " * PART)
    coding = (b"content-encoding", b"gzip")
    async with asyncio.timeout(STEP):
        others = [Upload(app), Upload(app)]
        for other in others:
            await other.part(b" " * PART)
        assert await Upload(app, coding).end(bomb) == 429
        assert refused == ["TOO_MANY_BODIES"]
        for other in others:
            assert await other.end(b" " * REST) == 400
        assert await Upload(app, coding).end(bomb) == 400
    assert len(refused) == 1


def test_a_client_that_disconnects_frees_its_room(crowded: ServerProcess) -> None:
    for _ in range(3):
        with opened(crowded, 2):
            pass
    body = request("POST", PATH, JSON, body=b" " * (PART + REST))
    with Connection(crowded.address("request-manager", "http")) as connection:
        give_up = time.monotonic() + REQUEST_END
        status = 429
        while status == 429 and time.monotonic() < give_up:
            connection.send(body)
            status = connection.answer().status
        assert status == 400


def test_a_share_returns_all_its_bytes() -> None:
    budget = BodyBudget(10)
    with budget.share() as one, budget.share() as other:
        one.hold(4)
        other.hold(6)
        with pytest.raises(ResourceExhaustedError) as caught:
            one.hold(5)
        assert caught.value.reason == "TOO_MANY_BODIES"
        other.hold(5)
        one.hold(5)
    with budget.share() as one:
        one.hold(10)


def test_the_budget_is_thread_safe() -> None:
    budget = BodyBudget(10)

    def hold(_: int) -> None:
        for size in range(200):
            with contextlib.suppress(ResourceExhaustedError), budget.share() as share:
                share.hold(size % 8)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(hold, range(8)))
    with budget.share() as share:
        share.hold(10)


@pytest.mark.parametrize("size", [0, 1, 262_143, 262_144, 262_145, 1_000_000])
async def test_gzip_is_decompressed_in_steps_and_counted(size: int) -> None:
    plain = bytes(number % 251 for number in range(size))
    packed = gzip.compress(plain)
    needed = len(packed) + size
    with BodyBudget(needed).share() as share:
        assert await decoded(packed, "gzip", size, share) == plain
    with pytest.raises(ResourceExhaustedError), BodyBudget(needed - 1).share() as share:
        await decoded(packed, "gzip", size, share)
    if size:
        with pytest.raises(HttpError) as caught, BodyBudget(2 * needed).share() as share:
            await decoded(packed, "gzip", size - 1, share)
        assert caught.value.status == 413
    with pytest.raises(HttpError) as caught, BodyBudget(2 * needed).share() as share:
        await decoded(packed[:-1], "gzip", size, share)
    assert caught.value.status == 400


def app_with(max_values: int) -> GatewayApp:
    """Returns an app of methods that nobody may reach, with room for bodies of the maximum size."""
    services = (
        request_manager_pb2.DESCRIPTOR.services_by_name["RequestManager"],
        runner_reports_pb2.DESCRIPTOR.services_by_name["RunnerReports"],
    )
    return GatewayApp(
        [MethodTable(service, Uncalled(), Gate(10)) for service in services],
        title="Here",
        error_format=ErrorFormat.FULL,
        limits=InputLimits.of(max_body=MAX_BODY, max_bodies=1, max_values=max_values),
        on_refused=lambda error: None,
    )


async def test_large_bodies_are_parsed_in_the_thread_while_small_ones_are_answered() -> None:
    may_end = threading.Event()
    app = app_with(1_000_000)
    async with asyncio.timeout(STEP):
        blocker = asyncio.create_task(run_large(may_end.wait))
        large = asyncio.create_task(Upload(app).end(b"[" + b" " * LARGE))
        try:
            assert await Upload(app).end(b"[") == 400
            assert not large.done()
        finally:
            may_end.set()
        assert await large == 400
        await blocker


@pytest.mark.parametrize("count", [100, 50_000])
async def test_a_body_with_too_many_values_gets_400_before_it_is_parsed(count: int) -> None:
    app = app_with(count)
    body = b'{"args":[' + b"1," * count + b"1]}"
    async with asyncio.timeout(STEP):
        upload = Upload(app)
        assert await upload.end(body) == 400
        assert f"at most {count}" in upload.body.decode()
        packed = Upload(app, (b"content-encoding", b"gzip"))
        assert await packed.end(gzip.compress(body)) == 400
        assert packed.body == upload.body
        valid = Upload(app)
        assert await valid.end(body.replace(b"1,1,", b"")) == 400
        assert "expected=object, got=array" in valid.body.decode()


async def test_the_body_of_another_server_may_have_more_values() -> None:
    app = app_with(100)
    path = "/api/v1/requests/abc/log"
    async with asyncio.timeout(STEP):
        for count, message in ((900, "expected=string, got=array"), (1050, "at most 1000")):
            upload = Upload(app, path=path)
            assert await upload.end(b'{"name":[' + b"1," * count + b"1]}") == 400
            assert message in upload.body.decode()
