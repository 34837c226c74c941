"""The asyncio client, with a grpc.aio server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import grpc.aio
import pytest

from spincycle_grpc import AsyncClient, Client, State, errors
from spincycle_grpc.v1.request_manager_pb2_grpc import add_RequestManagerServicer_to_server
from tests.fake_manager import JOB_ID, REQUEST_ID, FakeManager, stage


@contextlib.asynccontextmanager
async def serving(manager: FakeManager) -> AsyncIterator[str]:
    with ThreadPoolExecutor(8) as threads:
        server = grpc.aio.server(migration_thread_pool=threads)
        add_RequestManagerServicer_to_server(manager, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            for event in manager.hold.values():
                event.set()
            await server.stop(None)


@pytest.fixture
def manager() -> FakeManager:
    return FakeManager()


@pytest.fixture
async def client(manager: FakeManager) -> AsyncIterator[AsyncClient]:
    async with serving(manager) as address, AsyncClient(address) as made:
        yield made


def public(of: type) -> set[str]:
    return {name for name in vars(of) if not name.startswith("_")}


def test_both_clients_have_the_same_methods() -> None:
    assert public(AsyncClient) == public(Client)


async def test_every_method_returns_its_result(manager: FakeManager, client: AsyncClient) -> None:
    assert (await client.create("nap", {"ms": "1"})).id == REQUEST_ID
    assert len((await client.plan("nap")).job_chain.jobs) == 2
    assert [request.id for request in await client.find(type="nap")] == [REQUEST_ID]
    assert (await client.get(REQUEST_ID)).HasField("job_chain")
    await client.start(REQUEST_ID)
    await client.stop(REQUEST_ID)
    assert len((await client.job_chain(REQUEST_ID)).jobs) == 2
    assert len(await client.log(REQUEST_ID)) == 1
    assert (await client.job_log(REQUEST_ID, JOB_ID)).exit == 7
    assert [spec.name for spec in await client.request_list()] == ["nap", "plain"]
    assert len((await client.running()).jobs) == 1
    counts = await client.count_requests(type="nap", states=[State.PENDING])
    assert (counts[State.PENDING].count, counts[State.COMPLETE].more) == (3, True)
    assert [runner.id for runner in await client.list_runners()] == ["r1", "r2"]
    assert (await client.get_configuration()).version == "2.0"
    assert (await client.get_caller()).user == "finch"
    assert await client.version() == "1.0.12"
    assert len(manager.asked) == 17
    assert all(0 < asked.time_remaining < 31 for asked in manager.asked)


async def test_retries_and_errors(manager: FakeManager, client: AsyncClient) -> None:
    away = errors.UnavailableError("shutting down", reason="SHUTTING_DOWN", request_id=REQUEST_ID)
    manager.failures = {"GetJobLog": [away, away], "Start": [away], "Stop": [away], "Create": [away]}
    await client.job_log(REQUEST_ID, JOB_ID)
    assert len(manager.requests("GetJobLog")) == 3
    for call, name in ((client.start, "Start"), (client.stop, "Stop")):
        with pytest.raises(errors.UnavailableError) as caught:
            await call(REQUEST_ID)
        assert (caught.value.reason, caught.value.request_id) == ("SHUTTING_DOWN", REQUEST_ID)
        assert len(manager.requests(name)) == 1, "a second stop would skip finally nodes"
    await client.create("nap", idempotency_key="mine")
    assert [request.idempotency_key for request in manager.requests("Create")] == ["mine", "mine"]
    with pytest.raises(errors.NotFoundError):
        await client.get("nosuch")


async def test_a_wait_reports_changes_until_the_request_ends(
    manager: FakeManager, client: AsyncClient
) -> None:
    manager.stages = [stage(State.PENDING), stage(State.RUNNING, 2), stage(State.COMPLETE, 5)]
    seen: list[int] = []
    ended = await client.wait(REQUEST_ID, on_change=lambda request: seen.append(request.state))
    assert State(ended.state) is State.COMPLETE
    assert seen == [State.PENDING, State.RUNNING, State.COMPLETE]
    manager.stages = [stage(State.RUNNING)]
    with pytest.raises(errors.DeadlineExceededError):
        await client.wait(REQUEST_ID, deadline=2)


async def test_a_wait_can_be_cancelled(manager: FakeManager, client: AsyncClient) -> None:
    manager.stages = [stage(State.RUNNING)]
    seen = asyncio.Event()
    task = asyncio.create_task(client.wait(REQUEST_ID, on_change=lambda _: seen.set()))
    await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await client.version() == "1.0.12"


async def test_a_call_can_be_cancelled_and_closed(manager: FakeManager, client: AsyncClient) -> None:
    manager.hold["Version"] = threading.Event()
    cancelled = asyncio.create_task(client.version())
    closed = asyncio.create_task(client.version())
    assert await asyncio.to_thread(manager.asked_often, 2)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await client.close()
    with pytest.raises(errors.CallCancelledError) as caught:
        await closed
    assert caught.value.reason == "CLIENT_CLOSED"
    with pytest.raises(errors.CallCancelledError):
        await client.version()


async def test_a_passed_channel_stays_open(manager: FakeManager) -> None:
    async with serving(manager) as address, grpc.aio.insecure_channel(address) as channel:
        async with AsyncClient(address, channel=channel) as client:
            assert await client.version() == "1.0.12"
        async with AsyncClient(address, channel=channel) as client:
            assert await client.version() == "1.0.12"


async def test_an_unreachable_or_silent_server(manager: FakeManager, client: AsyncClient) -> None:
    async with AsyncClient("127.0.0.1:1", deadline=3) as nobody:
        with pytest.raises(errors.UnavailableError, match=r"127\.0\.0\.1:1"):
            await nobody.version()
    manager.hold["Version"] = threading.Event()
    with pytest.raises(errors.DeadlineExceededError):
        await client.version(deadline=2)
