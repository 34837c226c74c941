"""Both clients: a watch continues on another stream when its stream breaks, within its limits."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from spincycle_grpc import AsyncClient, Client, State, errors
from spincycle_grpc.v1.request_manager_pb2 import WatchRequest, WatchResponse
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_grpc.v1.state_pb2 import STATE_FAIL
from spincycle_grpc.watching import ResumedStream
from tests.fake_manager import REQUEST_ID, FakeManager, entry, serving, stage
from tests.limits import STEP

Kind = type[Client] | type[AsyncClient]
both = pytest.mark.parametrize("kind", [Client, AsyncClient])

STOPPING = errors.UnavailableError("shutting down", reason="SHUTTING_DOWN")
TOO_SLOW = errors.ResourceExhaustedError("read faster", reason="WATCHER_TOO_SLOW")
FULL = errors.ResourceExhaustedError("too many", reason="TOO_MANY_WATCHERS")
ENDED = errors.UnauthenticatedError("the token has expired", reason="CREDENTIALS_ENDED")
ONE = WatchResponse(cursor="1", requests=[stage(State.RUNNING, 1)], tries=[entry(1)])
TWO = WatchResponse(cursor="2")
THREE = WatchResponse(cursor="3", requests=[stage(State.COMPLETE, 5)])


@pytest.fixture
def manager() -> FakeManager:
    return FakeManager()


@pytest.fixture
def address(manager: FakeManager) -> Iterator[str]:
    with serving(manager) as served:
        yield served


@contextlib.asynccontextmanager
async def opened(kind: Kind, address: str, **options: Any) -> AsyncIterator[Client | AsyncClient]:
    client = kind(address, **options)
    try:
        yield client
    finally:
        await close(client)


async def close(client: Client | AsyncClient) -> None:
    if isinstance(client, Client):
        client.close()
    else:
        await client.close()


async def cursors(client: Client | AsyncClient, *arguments: Any, **options: Any) -> list[str]:
    """Watches, and returns the cursors of all messages."""
    if isinstance(client, AsyncClient):
        return [message.cursor async for message in client.watch(*arguments, **options)]
    return await asyncio.to_thread(
        lambda: [message.cursor for message in client.watch(*arguments, **options)]
    )


async def wait(client: Client | AsyncClient, *arguments: Any, **options: Any) -> Any:
    if isinstance(client, AsyncClient):
        return await client.wait(*arguments, **options)
    return await asyncio.to_thread(client.wait, *arguments, **options)


@both
async def test_a_watch_yields_all_messages(kind: Kind, manager: FakeManager, address: str) -> None:
    manager.streams = [[ONE, TWO, THREE]]
    chosen = RequestFilter(type="nap", states=[STATE_FAIL])
    async with opened(kind, address) as client:
        assert await cursors(client, REQUEST_ID) == ["1", "2", "3"]
        assert await cursors(client, filter=chosen, cursor="0") == ["1", "2", "3"]
        assert await cursors(client) == ["1", "2", "3"]
    assert manager.requests("Watch") == [
        WatchRequest(request_id=REQUEST_ID),
        WatchRequest(filter=chosen, cursor="0"),
        WatchRequest(),
    ]


@both
async def test_a_broken_stream_continues_after_the_last_message(
    kind: Kind, manager: FakeManager, address: str
) -> None:
    manager.streams = [[STOPPING], [ONE, STOPPING], [TWO, TOO_SLOW], [ENDED], [FULL], [THREE]]
    tokens = iter("abcdef")
    async with opened(kind, address, token=lambda: next(tokens)) as client:
        assert await cursors(client, REQUEST_ID) == ["1", "2", "3"]
    assert [request.cursor for request in manager.requests("Watch")] == ["", "", "1", "2", "2", "2"]
    assert manager.authorizations == [[f"Bearer {token}"] for token in "abcdef"]


@both
@pytest.mark.parametrize(
    "error",
    [
        FULL,
        errors.InvalidArgumentError("malformed", reason="BAD_CURSOR"),
        errors.PermissionDeniedError("not you", reason="ACCESS_DENIED"),
        errors.UnauthenticatedError("who are you", reason="NO_TOKEN"),
    ],
)
async def test_other_errors_end_a_watch_at_once(
    kind: Kind, error: errors.SpinCycleError, manager: FakeManager, address: str
) -> None:
    manager.streams = [[error]]
    async with opened(kind, address) as client:
        with pytest.raises(type(error)) as caught:
            await cursors(client)
    assert (caught.value.reason, caught.value.message) == (error.reason, error.message)
    assert len(manager.asked) == 1


@both
async def test_an_unknown_request_ends_a_watch(kind: Kind, manager: FakeManager, address: str) -> None:
    manager.streams = [[]]
    async with opened(kind, address) as client:
        with pytest.raises(errors.NotFoundError):
            await cursors(client, "nosuch")
        with pytest.raises(errors.NotFoundError):
            await wait(client, "nosuch")


@both
async def test_a_watch_gives_up_after_the_deadline_of_the_client(
    kind: Kind, manager: FakeManager, address: str
) -> None:
    manager.streams = [[ONE, STOPPING], [STOPPING]]
    async with opened(kind, address, deadline=1) as client:
        with pytest.raises(errors.UnavailableError) as caught:
            await cursors(client)
    assert caught.value.reason == "SHUTTING_DOWN"
    assert 3 <= len(manager.asked) <= 10


@both
async def test_a_watch_ends_at_its_deadline(kind: Kind, manager: FakeManager, address: str) -> None:
    manager.streams = [[ONE, threading.Event()]]
    async with opened(kind, address) as client:
        with pytest.raises(errors.DeadlineExceededError) as caught:
            await cursors(client, REQUEST_ID, deadline=1)
        assert (caught.value.reason, caught.value.request_id) == ("WAITED_TOO_LONG", REQUEST_ID)
        with pytest.raises(errors.DeadlineExceededError) as caught:
            await wait(client, REQUEST_ID, deadline=1)
        assert (caught.value.reason, caught.value.request_id) == ("WAITED_TOO_LONG", REQUEST_ID)
        with pytest.raises(errors.InvalidArgumentError) as invalid:
            await cursors(client, REQUEST_ID, deadline=0)
        assert invalid.value.reason == "BAD_DEADLINE"


@both
async def test_closing_a_client_ends_its_watches(kind: Kind, manager: FakeManager, address: str) -> None:
    manager.streams = [[ONE, threading.Event()]]
    seen = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with opened(kind, address) as client:
        waiting = asyncio.create_task(
            wait(client, REQUEST_ID, on_change=lambda _: loop.call_soon_threadsafe(seen.set))
        )
        await asyncio.wait_for(seen.wait(), STEP)
        await close(client)
        with pytest.raises(errors.CallCancelledError) as caught:
            await asyncio.wait_for(waiting, STEP)
        assert caught.value.reason == "CLIENT_CLOSED"
        with pytest.raises(errors.CallCancelledError):
            await cursors(client)


@both
async def test_leaving_a_watch_ends_its_stream(kind: Kind, manager: FakeManager, address: str) -> None:
    manager.streams = [[ONE, threading.Event()]]
    async with opened(kind, address) as client:
        if isinstance(client, AsyncClient):
            async with contextlib.aclosing(client.watch(REQUEST_ID)) as messages:
                assert (await anext(messages)).cursor == "1"
        else:
            with contextlib.closing(client.watch(REQUEST_ID)) as some:
                assert (await asyncio.to_thread(next, some)).cursor == "1"
        assert not client._streams
        assert await asyncio.to_thread(manager.ended_often, 1)


@both
async def test_a_wait_reports_the_changes_of_a_watch(kind: Kind, manager: FakeManager, address: str) -> None:
    manager.streams = [[ONE, TWO, STOPPING], [ONE, THREE]]
    manager.stages = [stage(State.COMPLETE, 5)]
    seen: list[int] = []
    async with opened(kind, address) as client:
        ended = await wait(client, REQUEST_ID, on_change=lambda request: seen.append(request.finished_jobs))
    assert ended == manager.stages[0]
    assert seen == [1, 5]
    assert [asked.method for asked in manager.asked] == ["Watch", "Watch", "Get"]


@both
@pytest.mark.parametrize("streams", [None, [[FULL]], [[ONE, THREE]], [[]]])
async def test_a_wait_polls_if_the_watch_does_not_tell_the_end(
    kind: Kind, streams: Any, manager: FakeManager, address: str
) -> None:
    manager.streams = streams
    manager.stages = [stage(State.RUNNING, 1), stage(State.FAIL, 2)]
    async with opened(kind, address) as client:
        assert (await wait(client, REQUEST_ID)).state == State.FAIL
    assert [asked.method for asked in manager.asked] == ["Watch", "Get", "Get"]


@both
async def test_an_older_server_cannot_be_watched(kind: Kind, address: str) -> None:
    async with opened(kind, address) as client:
        with pytest.raises(errors.UnimplementedError, match="check that the server has the right"):
            await cursors(client)


@both
async def test_an_error_of_a_caller_ends_the_wait(kind: Kind, manager: FakeManager, address: str) -> None:
    manager.streams = [[ONE, threading.Event()]]

    def fail(_: object) -> None:
        raise ZeroDivisionError

    async with opened(kind, address) as client:
        with pytest.raises(ZeroDivisionError):
            await wait(client, REQUEST_ID, on_change=fail)
        assert not client._streams


def test_pauses_start_again_after_a_message() -> None:
    watch: ResumedStream[WatchResponse] = ResumedStream("Watch", WatchRequest(), None, 30)
    pauses = [watch.pause_after(STOPPING) for _ in range(6)]
    watch.add(ONE)
    assert pauses[-1] is not None
    assert 1 <= pauses[-1] <= 2
    again = watch.pause_after(STOPPING)
    assert again is not None
    assert again <= 0.1


def test_a_message_without_cursor_keeps_the_cursor() -> None:
    watch: ResumedStream[WatchResponse] = ResumedStream("Watch", WatchRequest(cursor="7"), None, 30)
    watch.add(WatchResponse(requests=[stage(State.RUNNING)]))
    assert watch.request.cursor == "7"
    assert watch.timeout() is None
