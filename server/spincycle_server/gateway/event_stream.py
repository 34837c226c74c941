"""The answer of a method that streams: server-sent events, until the method or its client ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias

import structlog
from google.protobuf.message import Message

from spincycle_grpc.errors import InternalError, SpinCycleError, Status
from spincycle_server.gateway import event_text
from spincycle_server.gateway.errors import Header
from spincycle_server.gateway.request_bodies import Receive
from spincycle_server.large_work import run_sized
from spincycle_server.shared_messages import SharedMessage

logger = structlog.get_logger(__name__)

Send: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]

HEARTBEAT_INTERVAL = 15.0
"""Seconds without an event after which a comment is sent. It keeps proxies from closing the connection, and
shows the server that a client has vanished."""

FIRST_EVENT_TIMEOUT = 2.0
"""Seconds that the head of the answer waits for the first message. An error in this time is a plain error."""

LAST_EVENT_TIMEOUT = 1.0
"""Seconds for which the last event waits for a client that does not read. Its connection is aborted then."""

HEADERS: tuple[Header, ...] = (
    (b"content-type", event_text.MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would collect events before it passes them on.
)


class StreamConnection(Protocol):
    """What a stream needs of its connection. It is in the scope as "spincycle.connection"."""

    def end_at_eof(self, ends: bool) -> None:
        """Sets whether a client that closes its sending side is gone."""

    def begin_stream(self) -> None:
        """Prepares the connection for an answer that ends with the connection."""

    def abort(self) -> None:
        """Closes the connection at once."""


class EventStream:
    """One stream of events.

    A client that does not read pauses the method, because the stream takes the next message only after the
    earlier ones have left. `StallWatch` ends the connection of a client that reads nothing for a while.

    Args:
        messages: The messages of the method.
        denied_status: The HTTP status of PERMISSION_DENIED.
        receive: Tells when the client is gone.
        connection: The connection of the client.
    """

    def __init__(
        self,
        messages: AsyncIterator[Message | SharedMessage],
        denied_status: int,
        receive: Receive,
        connection: StreamConnection,
    ) -> None:
        self._messages = messages
        self._denied_status = denied_status
        self._connection = connection
        connection.end_at_eof(True)
        self._first = asyncio.ensure_future(_next(messages))
        self._gone = asyncio.ensure_future(_client_is_gone(receive))
        self._loop = asyncio.get_running_loop()
        self._last_sent = 0.0
        self._is_sending = False

    async def begin(self) -> bool:
        """Waits for the first message, for a while.

        Returns:
            Whether there is something to send. If not, the method has ended, or the client is gone.

        Raises:
            SpinCycleError: The method failed before its first message.
        """
        try:
            await asyncio.wait(
                {self._first, self._gone},
                timeout=FIRST_EVENT_TIMEOUT,
                return_when=asyncio.FIRST_COMPLETED,
            )
            has_begun = not self._gone.done() and not (self._first.done() and self._first.result() is None)
        except BaseException:
            await self.close()
            raise
        if not has_begun:
            await self.close()
        return has_begun

    async def send_head(self, send: Send) -> None:
        """Answers HEAD, and ends the method."""
        await self.close()
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": list(HEADERS)})
        await send({"type": "http.response.body", "body": b""})

    async def send(self, send: Send) -> None:
        """Sends the events, until the method ends or the client is gone."""
        self._connection.begin_stream()
        sending: asyncio.Task[None] | None = None
        try:
            await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": list(HEADERS)})
            await self._send(send, event_text.BEGIN)
            sending = asyncio.create_task(self._send_all(send))
            while not (sending.done() or self._gone.done()):
                rest = self._last_sent + HEARTBEAT_INTERVAL - self._loop.time()
                if rest > 0 or self._is_sending:  # An event that waits for the client is reason enough.
                    await asyncio.wait(
                        {sending, self._gone},
                        timeout=rest if rest > 0 else HEARTBEAT_INTERVAL,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                else:
                    await self._send(send, event_text.HEARTBEAT)
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.wait({sending})
            await self.close()

    async def close(self) -> None:
        """Ends the method, which learns of it at once."""
        self._connection.end_at_eof(False)
        for task in (self._first, self._gone):
            task.cancel()
        await asyncio.gather(self._first, self._gone, return_exceptions=True)
        close = getattr(self._messages, "aclose", None)
        if close is not None:
            await close()

    async def _send_all(self, send: Send) -> None:
        """Sends the messages, and the reason why there are no more."""
        last = event_text.END
        try:
            message = await self._first
            while message is not None:
                await self._send(send, await _event_of(message))
                await asyncio.sleep(0)  # A method that never waits must not stop the event loop.
                message = await _next(self._messages)
        except SpinCycleError as error:
            is_denied = error.status is Status.PERMISSION_DENIED
            status = self._denied_status if is_denied else error.status.http_status
            last = event_text.error_event(error, status)
        except Exception:
            logger.exception("sending events failed")
            unexpected = InternalError("internal error: see the server's log for details")
            last = event_text.error_event(unexpected, unexpected.status.http_status)
        await self._send_last(send, last)

    async def _send(self, send: Send, part: bytes) -> None:
        self._is_sending = True
        await send({"type": "http.response.body", "body": part, "more_body": True})
        self._is_sending = False
        self._last_sent = self._loop.time()

    async def _send_last(self, send: Send, part: bytes) -> None:
        self._is_sending = True
        try:
            async with asyncio.timeout(LAST_EVENT_TIMEOUT):
                await send({"type": "http.response.body", "body": part})
        except TimeoutError:
            self._connection.abort()


async def _next(messages: AsyncIterator[Message | SharedMessage]) -> Message | SharedMessage | None:
    """Returns the next message; None if there are no more."""
    return await anext(messages, None)


async def _event_of(message: Message | SharedMessage) -> bytes:
    """Returns the event of a message. Large ones are encoded in a thread."""
    if isinstance(message, SharedMessage):
        return await run_sized(message.size, message.encoded, event_text.message_event)
    return await run_sized(message.ByteSize(), event_text.message_event, message)


async def _client_is_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
