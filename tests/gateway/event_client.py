"""A client of server-sent events, and servers in the process of a test that send them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from spincycle_grpc.v1 import request_manager_pb2
from spincycle_grpc.v1.request_manager_pb2 import WatchRequest, WatchResponse
from spincycle_server.gateway import ErrorFormat, GatewayApp, HttpLimits, HttpServer, with_cors
from spincycle_server.identity import Authentication
from spincycle_server.listening import Address
from spincycle_server.rpc import CallContext, Gate, InputLimits, MethodTable
from spincycle_server.shared_messages import SharedMessage
from tests.gateway.wire import request
from tests.limits import ANSWER

SERVICE = request_manager_pb2.DESCRIPTOR.services_by_name["RequestManager"]
Watch = Callable[[WatchRequest, CallContext], AsyncIterator[WatchResponse | SharedMessage]]


class Watched:
    """A Request Manager that can only be watched, and says its version."""

    def __init__(self, watch: Watch) -> None:
        self.Watch = watch

    async def Version(
        self, request: object, context: CallContext
    ) -> request_manager_pb2.RequestManagerVersionResponse:
        return request_manager_pb2.RequestManagerVersionResponse(version="1.2.3")

    def __getattr__(self, _: str) -> Callable[..., Awaitable[object]]:
        async def unused(request: object, context: object) -> object:
            raise AssertionError

        return unused


@asynccontextmanager
async def watched(
    watch: Watch,
    *,
    gate: Gate | None = None,
    authentication: Authentication | None = None,
    limits: HttpLimits = HttpLimits(),  # noqa: B008 (it is frozen)
    call_timeout: float = 60.0,
    origins: tuple[str, ...] = (),
) -> AsyncIterator[str]:
    """Runs an HTTP server whose method Watch does what a test says. Yields its address."""
    table = MethodTable(SERVICE, Watched(watch), gate or Gate(10), authentication)
    app = GatewayApp(
        [table],
        title="Test",
        error_format=ErrorFormat.FULL,
        limits=InputLimits(),
        on_refused=lambda error: None,
        call_timeout=call_timeout,
    )
    server = HttpServer(
        with_cors(app, origins),
        Address("127.0.0.1", 0),
        None,
        limits,
        app.early_refusals(gate or Gate(10)),
    )
    await server.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop(1)


@dataclass
class Event:
    """One event: its id, type and data, and the comments before it."""

    id: str | None = None
    type: str = "message"
    data: Any = None
    comments: list[str] = field(default_factory=list)


class EventClient:
    """One request for server-sent events.

    Attributes:
        status: The status of the answer.
        headers: Its headers, by names in lower case.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self._text = b""
        self._has_ended = False

    async def read_head(self) -> None:
        """Reads status and headers."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    async def body(self) -> Any:
        """Returns the JSON body of an answer that is not a stream."""
        return json.loads(await self.reader.readexactly(int(self.headers["content-length"])))

    async def event(self) -> Event | None:
        """Returns the next event, or block of comments; None at the end of the stream."""
        while b"\n\n" not in self._text:
            part = await self._part()
            if not part:
                assert not self._text, f"the stream ended in an event: {self._text!r}"
                return None
            self._text += part
        block, _, self._text = self._text.partition(b"\n\n")
        event = Event()
        for line in block.decode().split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not name:
                event.comments.append(value)
            elif name == "id":
                event.id = value
            elif name == "event":
                event.type = value
            elif name == "data":
                assert event.data is None
                event.data = json.loads(value)
            else:
                assert name == "retry"
        return event

    async def events(self) -> list[Event]:
        """Returns the rest of the events that have data."""
        found = []
        while (event := await self.event()) is not None:
            if event.data is not None:
                found.append(event)
        return found

    async def next_message(self) -> Event:
        """Returns the next event that has data."""
        while (event := await self.event()) is not None:
            if event.data is not None:
                return event
        raise AssertionError("the stream has ended")

    async def _part(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return await self.reader.read(65536)
        if self._has_ended:
            return b""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = await self.reader.readexactly(size + 2)
        self._has_ended = size == 0
        return data[:-2]


@asynccontextmanager
async def requested(
    address: str,
    path: str = "/api/v1/watch",
    *headers: str,
    method: str = "GET",
    version: str = "1.1",
    limit: int = 65536,
) -> AsyncIterator[EventClient]:
    """Sends a request. Yields the client, which has read the head of the answer."""
    async with connected(address, limit) as client:
        sent = request(method, path, *headers).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
        client.writer.write(sent)
        await client.read_head()
        yield client


@asynccontextmanager
async def connected(address: str, limit: int = 65536) -> AsyncIterator[EventClient]:
    """Connects to a server. Yields a client that has sent nothing."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(ANSWER):
        reader, writer = await asyncio.open_connection(host, int(port), limit=limit)
        try:
            yield EventClient(reader, writer)
        finally:
            writer.close()
