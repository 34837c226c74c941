"""The stream of reports: expired leases, and Request Managers that do not answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
import trustme
from google.protobuf.duration_pb2 import Duration

from spincycle_grpc.v1.runner_reports_pb2 import (
    AskedJobTypes,
    Assignment,
    ChainFinish,
    KnownJobTypes,
    ReportRequest,
    ReportResponse,
    RunnerInfo,
)
from spincycle_grpc.v1.runner_reports_pb2_grpc import (
    RunnerReportsServicer,
    add_RunnerReportsServicer_to_server,
)
from spincycle_grpc.v1.state_pb2 import STATE_COMPLETE
from spincycle_server.job_runner.capacity_streams import CapacityStreams
from spincycle_server.job_runner.known_types import KnownTypes
from spincycle_server.job_runner.outbox import Outbox
from spincycle_server.job_runner.reporter import Reporter
from tests.limits import STEP

RUNNER = RunnerInfo(runner_id="runner", url="http://127.0.0.1:1", grpc_address="127.0.0.1:2")
ASSIGNMENT = Assignment(request_id="request", epoch=1)


class Manager(RunnerReportsServicer):
    """A Request Manager that acknowledges every message while `answers` is set.

    Attributes:
        lease: Seconds that a lease lasts.
        answers: Whether it answers now.
        heard: Is set when a message has come.
        streams: How many streams were opened.
        kept: How many places it keeps; None if it does not say.
        wanted: How many places others want, by the messages.
    """

    Finish = Progress = RecordLog = Suspend = None  # type: ignore[assignment]

    def __init__(self, lease: float) -> None:
        self.lease = lease
        self.answers = asyncio.Event()
        self.answers.set()
        self.heard = asyncio.Event()
        self.streams = 0
        self.kept: int | None = None
        self.wanted: list[int] = []

    async def Report(
        self, requests: AsyncIterator[ReportRequest], context: object
    ) -> AsyncIterator[ReportResponse]:
        self.streams += 1
        async for message in requests:
            self.wanted.append(message.wanted_places)
            self.heard.set()
            await self.answers.wait()
            seconds = int(self.lease)
            lease = Duration(seconds=seconds, nanos=int((self.lease - seconds) * 1e9))
            ends = any(chain.WhichOneof("end") for chain in message.chains)
            yield ReportResponse(number=message.number, lease=lease, kept_places=self.kept if ends else None)


@contextlib.asynccontextmanager
async def serving(manager: Manager, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[str]:
    server = grpc.aio.server()
    add_RunnerReportsServicer_to_server(manager, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        manager.answers.set()
        await server.stop(None)


@contextlib.asynccontextmanager
async def reporting(reporter: Reporter) -> AsyncIterator[None]:
    task = asyncio.ensure_future(reporter.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


async def test_an_expired_lease_is_reported_before_the_commits_of_the_same_answer(outbox: Outbox) -> None:
    manager = Manager(lease=0.5)
    seen: list[str] = []
    claim: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    claim.add_done_callback(lambda _: seen.append("committed"))
    async with serving(manager) as address:
        reporter = Reporter(RUNNER, [address], outbox, list, lease=60, on_lapse=lambda: seen.append("lapse"))
        async with reporting(reporter), asyncio.timeout(STEP):
            await reporter.wait_connected()
            manager.answers.clear()
            outbox.add_claim(ASSIGNMENT, (0, 0), claim)
            while reporter.lease_left:  # noqa: ASYNC110 (no event tells that a time is over)
                await asyncio.sleep(0.01)
            assert not seen
            manager.answers.set()
            await claim
    assert seen[:2] == ["lapse", "committed"]


@pytest.mark.parametrize(("kept", "offered"), [(None, 1), (0, 2), (1, 1)])
async def test_places_that_the_request_manager_does_not_keep_are_offered_to_others(
    outbox: Outbox, kept: int | None, offered: int
) -> None:
    """A Request Manager of an earlier version does not say how many it keeps: it keeps those of all ends."""
    manager = Manager(lease=60)
    manager.kept = kept
    capacity = CapacityStreams(lambda: 2)
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with serving(manager) as address:
        reporter = Reporter(RUNNER, [address], outbox, list, lease=60, capacity=capacity)
        async with reporting(reporter), asyncio.timeout(STEP):
            await reporter.wait_connected()
            outbox.add_end(ASSIGNMENT, ChainFinish(state=STATE_COMPLETE), (1, 1), end)
            await end
            places = capacity.watch(5)
            assert await anext(places) == offered
            manager.heard.clear()
            outbox.nudge()
            await manager.heard.wait()
            assert manager.wanted[-1] == 5 - offered
            await places.aclose()
    assert set(manager.wanted[:-1]) == {0}


async def test_another_request_manager_is_reached_before_the_lease_expires(outbox: Outbox) -> None:
    frozen, other = Manager(lease=8), Manager(lease=8)
    lapses: list[None] = []
    async with serving(frozen) as first, serving(other) as second:
        reporter = Reporter(
            RUNNER, [first, second], outbox, list, lease=8, on_lapse=lambda: lapses.append(None)
        )
        async with reporting(reporter), asyncio.timeout(STEP):
            await reporter.wait_connected()
            frozen.answers.clear()
            frozen.heard.clear()
            await frozen.heard.wait()
            await other.heard.wait()
            assert reporter.lease_left > 0
    assert not lapses


async def test_a_runner_that_no_request_manager_knows_leaves_at_once(outbox: Outbox) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        reporter = Reporter(RUNNER, [address], outbox, list, lease=60)
        async with reporting(reporter), asyncio.timeout(STEP):
            await reporter.leave()


async def test_new_credentials_open_a_new_stream_without_an_error(outbox: Outbox) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    server_credentials = grpc.ssl_server_credentials(
        [(own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())]
    )
    newest = [grpc.ssl_channel_credentials(authority.cert_pem.bytes())]
    manager = Manager(lease=0.5)
    async with serving(manager, server_credentials) as address:
        reporter = Reporter(RUNNER, [address], outbox, list, lease=60, credentials=lambda: newest[-1])
        with structlog.testing.capture_logs() as log:
            async with reporting(reporter), asyncio.timeout(STEP):
                await reporter.wait_connected()
                newest.append(grpc.ssl_channel_credentials(authority.cert_pem.bytes()))
                while manager.streams < 2:  # noqa: ASYNC110 (gRPC has no event for a new stream)
                    await asyncio.sleep(0.01)
                manager.heard.clear()
                await manager.heard.wait()
    assert "reporting interrupted" not in [entry["event"] for entry in log]


class ClosedManager(Manager):
    """A Request Manager that refuses each stream before it reads a message."""

    async def Report(
        self, requests: AsyncIterator[ReportRequest], context: Any
    ) -> AsyncIterator[ReportResponse]:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "set cluster.key_file")
        yield ReportResponse()


async def test_the_log_says_why_a_stream_is_refused_although_grpc_loses_the_reason(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(self: Reporter, call: object, message: object) -> ReportResponse:
        """Fails as gRPC does if the server ends a stream at the wrong moment."""
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, "Internal error from Core")

    monkeypatch.setattr(Reporter, "_exchange", lose)
    async with serving(ClosedManager(lease=60)) as address:
        reporter = Reporter(RUNNER, [address], outbox, list, lease=60)
        with structlog.testing.capture_logs() as logs:
            async with reporting(reporter), asyncio.timeout(STEP):
                while not logs:  # noqa: ASYNC110 (a log has no event)
                    await asyncio.sleep(0.01)
    assert "set cluster.key_file" in logs[0]["error"]


class AskingManager(Manager):
    """A Request Manager that asks each stream about job types in its first answer.

    Attributes:
        told: What the messages of the streams have told, without those that tell nothing.
    """

    def __init__(self, *types: str) -> None:
        super().__init__(lease=60)
        self.asked = AskedJobTypes(version="v1", types=types)
        self.told: list[KnownJobTypes] = []

    async def Report(
        self, requests: AsyncIterator[ReportRequest], context: object
    ) -> AsyncIterator[ReportResponse]:
        self.streams += 1
        async for message in requests:
            if message.HasField("known_job_types"):
                self.told.append(message.known_job_types)
            answer = ReportResponse(number=message.number, lease=Duration(seconds=60))
            if message.number == 1:
                answer.asked_job_types.CopyFrom(self.asked)
            yield answer


async def test_a_runner_is_connected_when_it_has_told_its_job_types(outbox: Outbox) -> None:
    manager = AskingManager("a", "b")
    known = KnownTypes("a".__eq__)
    async with serving(manager) as address:
        reporter = Reporter(RUNNER, [address], outbox, list, lease=60, known_types=known)
        async with reporting(reporter), asyncio.timeout(STEP):
            await reporter.wait_connected()
            assert manager.told == [KnownJobTypes(), KnownJobTypes(version="v1", types=["a"])]
            assert manager.streams == 1
    await known.close()


async def test_each_stream_is_told_the_known_job_types_at_once(outbox: Outbox) -> None:
    first, second = AskingManager("a"), AskingManager("a")
    known = KnownTypes("a".__eq__)
    answer = KnownJobTypes(version="v1", types=["a"])
    async with serving(second) as other, contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(first))
        reporter = Reporter(RUNNER, [address, other], outbox, list, lease=60, known_types=known)
        async with reporting(reporter), asyncio.timeout(STEP):
            await reporter.wait_connected()
            await stack.aclose()
            while not second.told:  # noqa: ASYNC110 (gRPC has no event for a message)
                await asyncio.sleep(0.01)
            await reporter.wait_connected()
    assert second.told == [answer]
    await known.close()


async def test_a_runner_that_does_not_say_what_it_knows_ignores_the_question(outbox: Outbox) -> None:
    manager = AskingManager("a")
    async with serving(manager) as address:
        reporter = Reporter(RUNNER, [address], outbox, list, lease=60)
        async with reporting(reporter), asyncio.timeout(STEP):
            await reporter.wait_connected()
    assert manager.told == []
