"""A method that streams answers with server-sent events, until it or its client ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from google.protobuf.message import Message

from spincycle_grpc.auth import Caller
from spincycle_grpc.errors import NotFoundError, PermissionDeniedError, ResourceExhaustedError
from spincycle_grpc.v1.request_manager_pb2 import WatchRequest, WatchResponse
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.state_pb2 import STATE_COMPLETE, STATE_RUNNING
from spincycle_server.gateway import HttpLimits, event_stream, event_text
from spincycle_server.identity import Authentication, Credentials, Identity
from spincycle_server.large_work import LARGE
from spincycle_server.rpc import CallContext, Gate, current_streams
from spincycle_server.shared_messages import SharedMessage
from tests.gateway.event_client import EventClient, connected, requested, watched
from tests.gateway.wire import request
from tests.limits import STEP

FIRST = WatchResponse(cursor="1", requests=[Request(id="abc", type="disk-check", state=STATE_RUNNING)])
LAST = WatchResponse(cursor="2", requests=[Request(id="abc", type="disk-check", state=STATE_COMPLETE)])
TOO_SLOW = ResourceExhaustedError("read faster", reason="WATCHER_TOO_SLOW", request_id="abc")


class Endless:
    """Watches forever. Records the requests, how many messages it has sent, and whether it was ended.

    Args:
        first: The messages that are sent at once.
        repeated: A message that is then sent again and again. None: silence.
    """

    def __init__(self, *first: WatchResponse, repeated: WatchResponse | None = None) -> None:
        self._first = first
        self._repeated = repeated
        self.requests: list[WatchRequest] = []
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.sent = 0

    async def __call__(self, request: WatchRequest, context: CallContext) -> AsyncIterator[WatchResponse]:
        self.requests.append(request)
        self.begun.set()
        try:
            for message in self._first:
                yield message
            while self._repeated is not None:
                self.sent += 1
                yield self._repeated
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def wait_ended(self) -> None:
        """Waits until the server has ended the method."""
        async with asyncio.timeout(STEP):
            await self.ended.wait()


async def both(request: WatchRequest, context: CallContext) -> AsyncIterator[WatchResponse]:
    yield FIRST
    yield LAST


async def nothing(request: WatchRequest, context: CallContext) -> AsyncIterator[WatchResponse]:
    return
    yield


async def missing(request: WatchRequest, context: CallContext) -> AsyncIterator[WatchResponse]:
    raise NotFoundError("no such request", reason="REQUEST_NOT_FOUND", request_id=request.request_id)
    yield


async def denied(request: WatchRequest, context: CallContext) -> AsyncIterator[WatchResponse]:
    raise PermissionDeniedError("needs the role ops", reason="ACCESS_DENIED")
    yield


async def failing_later(request: WatchRequest, context: CallContext) -> AsyncIterator[WatchResponse]:
    yield FIRST
    raise TOO_SLOW


async def broken_later(request: WatchRequest, context: CallContext) -> AsyncIterator[WatchResponse]:
    yield FIRST
    raise ZeroDivisionError


async def heartbeating(request: WatchRequest, context: CallContext) -> AsyncIterator[WatchResponse]:
    yield FIRST
    yield WatchResponse(cursor="1b")
    yield LAST


async def test_each_message_is_an_event_with_its_cursor_as_id() -> None:
    async with watched(both) as address, requested(address) as client:
        assert client.status == 200
        assert client.headers["content-type"] == "text/event-stream"
        assert client.headers["cache-control"] == "no-store"
        assert client.headers["x-accel-buffering"] == "no"
        events = await client.events()
        assert [(event.id, event.type) for event in events] == [
            ("1", "message"),
            ("2", "message"),
            (None, "end"),
        ]
        assert events[0].data["requests"][0]["state"] == 2
        assert events[1].data["cursor"] == "2"
        assert not await client.reader.read()


async def test_a_message_that_several_streams_send_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    large = WatchResponse(cursor="2", gone=["x" * LARGE])
    shared = [SharedMessage(FIRST), SharedMessage(large)]
    encoded: list[Message] = []
    event_of = event_text.message_event

    def message_event(message: Message) -> bytes:
        encoded.append(message)
        return event_of(message)

    async def both_shared(request: WatchRequest, context: CallContext) -> AsyncIterator[SharedMessage]:
        for message in shared:
            yield message

    monkeypatch.setattr(event_text, "message_event", message_event)
    async with watched(both_shared) as address:
        for _ in range(2):
            async with requested(address) as client:
                events = await client.events()
            assert [event.id for event in events] == ["1", "2", None]
            assert events[1].data["gone"] == list(large.gone)
    assert encoded == [FIRST, large]


async def test_a_message_with_a_cursor_alone_is_an_id_without_data() -> None:
    async with watched(heartbeating) as address, requested(address) as client:
        events = [await client.event() for _ in range(5)]
    assert [event.id for event in events if event] == [None, "1", "1b", "2", None]
    assert [event.data is None for event in events if event] == [True, False, True, False, False]


async def test_an_error_before_the_first_message_is_a_plain_error() -> None:
    async with watched(missing) as address, requested(address, "/api/v1/requests/abc/watch") as client:
        assert client.status == 404
        assert client.headers["x-spincycle-reason"] == "REQUEST_NOT_FOUND"
        assert client.headers["content-type"].startswith("application/json")
        assert await client.body() == {
            "message": "no such request",
            "requestId": "abc",
            "httpStatus": 404,
        }
        client.writer.write(request("GET", "/version"))
        await client.read_head()
        assert client.status == 200


async def test_a_denied_watch_has_the_status_of_its_contract() -> None:
    async with watched(denied) as address, requested(address) as client:
        assert (client.status, client.headers["x-spincycle-reason"]) == (403, "ACCESS_DENIED")


async def test_an_error_after_the_first_message_is_an_event() -> None:
    async with watched(failing_later) as address, requested(address) as client:
        first, last = await client.events()
    assert first.id == "1"
    assert (last.type, last.id) == ("error", None)
    assert last.data == {
        "message": "read faster",
        "requestId": "abc",
        "httpStatus": 429,
        "reason": "WATCHER_TOO_SLOW",
    }


async def test_an_unexpected_error_after_the_first_message_is_an_internal_error() -> None:
    async with watched(broken_later) as address, requested(address) as client:
        _, last = await client.events()
    assert (last.type, last.data["reason"], last.data["httpStatus"]) == ("error", "INTERNAL", 500)
    assert "ZeroDivision" not in last.data["message"]


async def test_a_stream_without_messages_gets_204_so_that_browsers_stop() -> None:
    async with watched(nothing) as address, requested(address) as client:
        assert client.status == 204
        assert "content-type" not in client.headers


async def test_a_silent_method_gets_its_head_and_then_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "FIRST_EVENT_TIMEOUT", 0.01)
    monkeypatch.setattr(event_stream, "HEARTBEAT_INTERVAL", 0.01)
    method = Endless()
    async with watched(method) as address:
        async with requested(address) as client:
            assert client.status == 200
            blocks = [await client.event() for _ in range(4)]
            assert [block.comments for block in blocks if block] == [[], *[["heartbeat"]] * 3]
        await method.wait_ended()


async def test_the_first_message_may_come_after_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "FIRST_EVENT_TIMEOUT", 0.01)
    may_send = asyncio.Event()

    async def late(request: WatchRequest, context: CallContext) -> AsyncIterator[WatchResponse]:
        await may_send.wait()
        yield FIRST
        raise TOO_SLOW

    async with watched(late) as address, requested(address) as client:
        may_send.set()
        assert [event.type for event in await client.events()] == ["message", "error"]


@pytest.mark.parametrize("leave", ["close", "write_eof", "abort"])
async def test_a_client_that_leaves_ends_the_method_at_once(leave: str) -> None:
    method = Endless(FIRST)
    async with watched(method) as address, requested(address) as client:
        await client.next_message()
        await left(client, leave)
        await method.wait_ended()


@pytest.mark.parametrize("leave", ["close", "write_eof", "abort"])
async def test_a_client_that_leaves_before_the_first_message_ends_the_method_at_once(leave: str) -> None:
    method = Endless()
    async with watched(method) as address, connected(address) as client:
        client.writer.write(request("GET", "/api/v1/watch"))
        await method.begun.wait()
        await left(client, leave)
        await method.wait_ended()


async def left(client: EventClient, how: str) -> None:
    if how == "abort":
        client.writer.transport.abort()
    else:
        getattr(client.writer, how)()


async def test_after_a_plain_error_a_client_may_close_its_sending_side() -> None:
    async with watched(missing) as address, requested(address, "/api/v1/requests/abc/watch") as client:
        assert client.status == 404
        await client.body()
        client.writer.write(request("GET", "/version"))
        client.writer.write_eof()
        await client.read_head()
        assert (client.status, await client.reader.read()) == (200, b"1.2.3")


async def test_a_client_that_does_not_read_pauses_the_method_and_is_disconnected() -> None:
    large = WatchResponse(cursor="1", gone=["x" * 10_000])
    method = Endless(repeated=large)
    async with (
        watched(method, limits=HttpLimits(idle_timeout=1.0)) as address,
        requested(address, limit=1000) as client,
    ):
        assert client.status == 200
        await method.wait_ended()
        # The buffers of the two sockets and of the server: some MB. Without a limit it would be gigabytes.
        assert method.sent < 3000
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.events()


async def test_the_last_event_does_not_wait_for_a_client_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_stream, "LAST_EVENT_TIMEOUT", 0.01)
    has_failed = asyncio.Event()

    async def much(request: WatchRequest, context: CallContext) -> AsyncIterator[WatchResponse]:
        yield WatchResponse(cursor="1", gone=["x" * 20_000_000])
        has_failed.set()
        raise TOO_SLOW

    async with watched(much) as address, requested(address, limit=1000) as client:
        await has_failed.wait()
        await asyncio.sleep(0.5)  # The client still does not read.
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.events()


@pytest.mark.parametrize(
    ("watch", "status"), [(Endless(FIRST), 200), (Endless(), 200), (missing, 404), (nothing, 204)]
)
async def test_head_has_the_status_of_get_without_a_stream(watch: object, status: int) -> None:
    method = watch if not isinstance(watch, Endless) else Endless(*watch._first)
    async with (
        watched(method) as address,  # type: ignore[arg-type]
        requested(address, "/api/v1/requests/abc/watch", method="HEAD") as client,
    ):
        assert client.status == status
        if isinstance(method, Endless):
            assert client.headers["content-type"] == "text/event-stream"
            await method.wait_ended()
        client.writer.write(request("GET", "/version"))
        await client.read_head()
        assert (client.status, await client.reader.readexactly(5)) == (200, b"1.2.3")


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("text/event-stream", 200),
        ("text/*;q=0.1", 200),
        ("application/json, */*", 200),
        ("", 200),
        ("application/json", 406),
        ("text/event-stream;q=0, */*", 406),
    ],
)
async def test_accept_must_allow_events(accept: str, status: int) -> None:
    async with watched(both) as address, requested(address, "/api/v1/watch", f"Accept: {accept}") as client:
        assert client.status == status
        if status == 406:
            assert client.headers["x-spincycle-reason"] == "NOT_ACCEPTABLE"
            assert "text/event-stream" in (await client.body())["message"]


async def test_other_methods_are_refused() -> None:
    async with watched(both) as address:
        async with requested(address, method="POST") as client:
            assert (client.status, client.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        async with requested(address, method="OPTIONS") as client:
            assert (client.status, client.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


async def test_http_1_0_gets_no_chunks() -> None:
    async with watched(both) as address, requested(address, version="1.0") as client:
        assert "transfer-encoding" not in client.headers
        assert [event.type for event in await client.events()] == ["message", "message", "end"]


async def test_events_are_not_compressed() -> None:
    large = WatchResponse(cursor="1", gone=["x" * 10_000])
    async with (
        watched(Endless(large)) as address,
        requested(address, "/api/v1/watch", "Accept-Encoding: gzip") as client,
    ):
        assert "content-encoding" not in client.headers
        assert (await client.next_message()).data["gone"] == ["x" * 10_000]


@pytest.mark.parametrize(
    ("query", "headers", "cursor"),
    [
        ("?cursor=7", (), "7"),
        ("", ("Last-Event-ID: 8",), "8"),
        ("?cursor=7", ("Last-Event-ID: 8",), "8"),
    ],
)
async def test_the_last_event_id_is_the_cursor(query: str, headers: tuple[str, ...], cursor: str) -> None:
    method = Endless(FIRST)
    async with watched(method) as address, requested(address, f"/api/v1/watch{query}", *headers):
        assert method.requests[0].cursor == cursor


async def test_both_bindings_read_path_and_query() -> None:
    method = Endless(FIRST)
    async with watched(method) as address:
        async with requested(address, "/api/v1/requests/abc/watch"):
            pass
        async with requested(address, "/api/v1/watch?type=disk-check&state=FAIL&user=ada"):
            pass
    assert method.requests[0] == WatchRequest(request_id="abc")
    assert method.requests[1].filter.type == "disk-check"
    assert method.requests[1].filter.user == "ada"


async def test_streams_take_no_place_of_calls() -> None:
    gate = Gate(1)
    async with (
        watched(Endless(FIRST), gate=gate) as address,
        requested(address) as one,
        requested(address) as two,
        requested(address, "/version") as call,
    ):
        assert (one.status, two.status, call.status) == (200, 200, 200)


async def test_the_timeout_of_calls_does_not_end_a_stream() -> None:
    async def patient(request: WatchRequest, context: CallContext) -> AsyncIterator[WatchResponse]:
        yield FIRST
        await asyncio.sleep(0.1)
        yield LAST

    async with watched(patient, call_timeout=0.01) as address, requested(address) as client:
        assert [event.type for event in await client.events()] == ["message", "message", "end"]


async def test_streams_count_as_connections() -> None:
    method = Endless(FIRST)
    async with (
        watched(method, limits=HttpLimits(max_connections=3)) as address,
        requested(address) as one,
        requested(address) as two,
        requested(address) as three,
    ):
        assert [one.status, two.status, three.status] == [200, 200, 503]
        assert three.headers["x-spincycle-reason"] == "TOO_MANY_CONNECTIONS"


async def test_a_revoked_credential_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current_streams, "STREAM_CHECK_INTERVAL", 0.01)
    is_valid = True

    class Tokens:
        hint = "a token"

        async def identify(self, credentials: Credentials) -> Identity:
            return Identity(Caller("ada"), "token", lambda: is_valid)

    method = Endless(FIRST)
    async with (
        watched(method, authentication=Authentication([Tokens()])) as address,
        requested(address) as client,
    ):
        await client.next_message()
        is_valid = False
        last = await client.next_message()
    assert (last.type, last.data["reason"], last.data["httpStatus"]) == ("error", "CREDENTIALS_ENDED", 401)
    await method.wait_ended()


async def test_a_server_that_shuts_down_refuses_new_streams() -> None:
    gate = Gate(1)
    async with watched(both, gate=gate) as address:
        gate.close()
        async with requested(address) as client:
            assert (client.status, client.headers["x-spincycle-reason"]) == (503, "SHUTTING_DOWN")


async def test_a_server_that_shuts_down_ends_open_streams_at_once() -> None:
    gate = Gate(1)
    method = Endless(FIRST)
    async with watched(method, gate=gate) as address, requested(address) as client:
        await client.next_message()
        gate.close()
        last = await client.next_message()
        assert (last.type, last.data["reason"], last.data["httpStatus"]) == ("error", "SHUTTING_DOWN", 503)
        assert await client.event() is None
        assert not await client.reader.read()
        await method.wait_ended()


async def test_pages_of_other_origins_may_read_events() -> None:
    async with (
        watched(both, origins=("https://ops.example.com",)) as address,
        requested(address, "/api/v1/watch", "Origin: https://ops.example.com") as client,
    ):
        assert client.headers["access-control-allow-origin"] == "https://ops.example.com"
        assert [event.type for event in await client.events()] == ["message", "message", "end"]
