"""One HTTP connection: uvicorn's protocol, with bounds on what a client may do to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from spincycle_server.gateway.errors import error_body, header_lines
from spincycle_server.gateway.refusals import EarlyRefusals

MAX_HEAD = 65_536
"""Bytes of a request's first line and headers together."""

LINGER = 2.0
"""Seconds that what a client still sends is thrown away after an answer that ends the connection."""

_SMALL = 32_768
"""Bytes of an answer's body that go out together with its head."""

_SPECIAL_HEADERS = frozenset({b"expect", b"origin"})
"""Headers that call for more than an answer: a word before it, or headers of its own."""

_FIRST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}) \S+ HTTP/1\.[01]\r?\n")
_STAND_IN = b"TRACE"
"""A method that the parser knows and no route has, in place of methods that it does not know."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a client may do to a server. Times are in seconds.

    Attributes:
        header_timeout: How long a request's first line and headers may take to arrive.
        read_timeout: How long the body of one that is refused may take then.
        idle_timeout: How long a connection may be idle between requests, or take nothing of an answer.
        max_connections: Connections at a time; more get 503.
    """

    header_timeout: float = 10.0
    read_timeout: float = 30.0
    idle_timeout: float = 75.0
    max_connections: int = 4000


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, for clients that are slow, wordy, wrong or gone.

    A head that takes too long gets 408, one that is too long 431, and what is no HTTP gets 400, all
    in order with the answers that are due before. An answer that ends a connection whose client
    still sends is followed by a while of not listening: else the client would find its connection
    reset, and not the answer.

    Args:
        limits: What a client may do.
        refusals: Says which calls are refused before they are read.
    """

    def __init__(self, *arguments: Any, limits: HttpLimits, refusals: EarlyRefusals, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limits = limits
        self._refusals = refusals
        self._refusing = b""
        self._has_refused = False
        self._header_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_size = 0
        self._arriving = 0
        self._unknown_method = b""
        self._lingering = False
        self._answering: Any = None
        self._unsent = 0
        self._unsent_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begins to wait for a request."""
        super().connection_made(transport)
        self._start_timer(self._limits.header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        if self._answering is not None:  # With pipelined requests it is not the newest, which uvicorn tells.
            self._answering.disconnected = True
            self._answering.message_event.set()
        self._stop_timer()
        self._stop_watching()
        super().connection_lost(exc)

    @property
    def _is_idle(self) -> bool:
        """Whether no request waits for its answer."""
        return self.cycle is None or self.cycle.response_complete

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answers a client that has said all, and listens on, as `nc -N` does."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body or self.scheme == "https":
            return None
        cycle.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        """Takes in what a client sent."""
        if self._lingering:
            return
        if self._header_timer is None and self._is_idle:
            self._start_timer(self._limits.header_timeout)
        self._unset_keepalive_if_required()
        self._has_refused = False
        self._arriving = len(data)
        rest = self._parse(data)
        while rest:
            rest = self._parse(rest)
        if self._in_head:
            self._on_part_of_head(len(data))

    def _parse(self, data: bytes | memoryview) -> bytes | memoryview:
        """Has the parser read, and returns what a new one has to read instead."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._start_parser()  # There is nothing to upgrade to: the connection goes on as it is.
            return memoryview(data)[upgrade.args[0] :]
        except httptools.HttpParserInvalidMethodError:
            return self._with_known_method(bytes(data))
        except httptools.HttpParserError:
            self._refuse(400, "Bad Request")
        return b""

    def on_message_begin(self) -> None:
        """Is called by the parser at the first byte of a request."""
        self._in_head = True
        self._head_size = -1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Is called by the parser when a request can be answered, but for its body."""
        self._in_head = False
        self._stop_timer()
        if self._refusals.is_due() and self._is_plain():
            self._refusing = self._refusals.answer(self.parser.get_method(), self.url)
            if self._refusing:
                self._start_timer(self._limits.read_timeout)
                return
        self._unset_keepalive_if_required()  # It may run since a request of the same packet was refused.
        app, target = self.app, self.url
        # Only a head that came in parts, or in a large one, can be too long.
        if (self._head_size >= 0 or self._arriving > MAX_HEAD) and self._measured_head() > MAX_HEAD:
            self.app, self.url = _head_too_large, b"/"
        elif target == b"*":
            self.url = b"/*"
        super().on_headers_complete()
        self.app = app
        if target == b"*":
            self.scope["raw_path"] = target
        if self._unknown_method:
            self.scope["method"] = self._unknown_method.decode()
            self._unknown_method = b""
        may_have_body = self.scope["method"] not in ("GET", "HEAD")
        close = self.end if may_have_body else self.transport.close
        has_body = self.scope["method"] != "HEAD"
        self.cycle.transport = _Transport(self.transport, close, has_body=has_body)  # type: ignore[assignment]

    def _is_plain(self) -> bool:
        """Whether the request at hand can be refused right here, as soon as it is whole."""
        return (
            self._is_idle
            and not self.flow.write_paused
            and not self._unknown_method
            and len(self.connections) < self._limits.max_connections
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not any(name in _SPECIAL_HEADERS for name, _ in self.headers)
        )

    def on_body(self, body: bytes) -> None:
        """Is called by the parser with a part of a body."""
        if not self._refusing:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Is called by the parser when a request is whole."""
        if not self._refusing:
            super().on_message_complete()
            return
        self._stop_timer()
        head = STATUS_LINE[429] + header_lines(self.server_state.default_headers)
        self.transport.write(head + self._refusing)
        self._refusing = b""
        self._has_refused = True
        self.on_response_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, _too_many_connections if app is service_unavailable else app)

    def on_response_complete(self) -> None:
        """Is called when an answer was handed to the transport."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_unsent()

    def pause_writing(self) -> None:
        """Is called when much of an answer waits for the client to take it."""
        super().pause_writing()
        self._watch_unsent()

    def resume_writing(self) -> None:
        """Is called when the client has taken most of it."""
        super().resume_writing()
        self._stop_watching()
        self._watch_unsent()

    def timeout_keep_alive_handler(self) -> None:
        """Ends an idle connection. One whose client still takes an answer in is not idle."""
        super().timeout_keep_alive_handler()
        self._watch_unsent()

    def _watch_unsent(self) -> None:
        """Looks on while the client takes an answer in, and ends the connection if it takes nothing."""
        self._unsent = self.transport.get_write_buffer_size()
        if self._unsent and self._unsent_timer is None:
            self._unsent_timer = self.loop.call_later(self._limits.idle_timeout, self._look_at_unsent)

    def _stop_watching(self) -> None:
        if self._unsent_timer is not None:
            self._unsent_timer.cancel()
            self._unsent_timer = None

    def _look_at_unsent(self) -> None:
        self._unsent_timer = None
        before = self._unsent
        if before <= self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self._watch_unsent()

    def end(self) -> None:
        """Ends the connection after an answer, in a way that lets a client that still sends read it."""
        if self.transport.is_closing():
            return
        if not (self._lingering or self.cycle is None or self.cycle.more_body):
            self.transport.close()
            return
        self._lingering = True
        self._stop_timer()
        self.pipeline.clear()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(LINGER, self.transport.abort)

    def _on_part_of_head(self, size: int) -> None:
        if self._lingering:
            return
        # What came together with the end of the message before is not counted.
        self._head_size = 0 if self._head_size < 0 else self._head_size + size
        if self._head_size > MAX_HEAD:
            self._refuse(431, _HEAD_TOO_LARGE)

    def _measured_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _with_known_method(self, data: bytes) -> bytes:
        """Has the app answer a method that the parser does not know: it knows what is allowed instead."""
        match = _FIRST_LINE.match(data)
        # With a refusal in the same data it is not known where in it the method stands.
        is_first = self._is_idle and not self._has_refused
        if match is None or not is_first or match[1] == _STAND_IN:
            self._refuse(400, "Bad Request")
            return b""
        self._start_parser()
        self._unknown_method = match[1]
        return _STAND_IN + data[match.end(1) :]

    def _start_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _refuse(self, status: int, message: str) -> None:
        """Answers what is no request, when the answers before are given, and ends the connection."""
        self._stop_timer()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            cycle.keep_alive = False
            return
        is_due = cycle is None or cycle.response_complete or not (cycle.response_started or self.pipeline)
        if is_due:
            body = error_body(message)
            headers = [
                *self.server_state.default_headers,
                (b"content-type", b"application/json; charset=UTF-8"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            self.transport.write(STATUS_LINE[status] + header_lines(headers) + b"\r\n" + body)
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self._lingering = True
        self.end()

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._header_timer = self.loop.call_later(seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self) -> None:
        self._header_timer = None
        if self.transport is None or self.transport.is_closing():
            return
        if self._in_head or self._refusing:
            self._refuse(408, "Request Timeout")
        else:
            self.transport.close()


class _Transport:
    """A connection's transport as one request sees it.

    The head of an answer waits for its body, which follows at once: one packet for both, and one system
    call, the most that a small answer costs. Where none follows, as with HEAD, it does not wait.
    """

    __slots__ = ("_has_body", "_head", "_write", "close", "is_closing")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None], *, has_body: bool) -> None:
        self._write: Callable[[bytes], None] = transport.write
        self._head = b""
        self._has_body = has_body
        self.is_closing: Callable[[], bool] = transport.is_closing
        self.close = close

    def write(self, data: bytes) -> None:
        if self._has_body and data[9:12] != b"100":
            self._has_body = False  # What follows is the body.
            self._head = data
        elif self._head:
            head, self._head = self._head, b""
            if len(data) > _SMALL:  # A copy would cost more than a call.
                self._write(head)
                head = b""
            self._write(head + data if head else data)
        else:
            self._write(data)


_HEAD_TOO_LARGE = f"Request Header Fields Too Large: at most {MAX_HEAD} bytes"


def _refusing(status: int, message: str, *headers: tuple[bytes, bytes]) -> Callable[..., Any]:
    """Returns an ASGI app that gives one answer and ends the connection."""
    body = error_body(message)
    all_headers = [
        (b"content-type", b"application/json; charset=UTF-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *headers,
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": all_headers})
        await send({"type": "http.response.body", "body": body})

    return app


_head_too_large = _refusing(431, _HEAD_TOO_LARGE)
_too_many_connections = _refusing(
    503, "Service Unavailable: too many connections, try again later", (b"retry-after", b"1")
)
