"""One HTTP connection, with limits on what a client may do to the server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import httptools

from spincycle_server.gateway.errors import error_body, header_lines, http_reason_header
from spincycle_server.gateway.http_limits import HttpLimits
from spincycle_server.gateway.refusals import EarlyRefusals
from spincycle_server.gateway.request_heads import problem_of
from spincycle_server.gateway.stalled_clients import StallWatch
from spincycle_server.gateway.uvicorn_internals import UvicornConnection
from spincycle_server.tls.failed_handshakes import FAILED_HANDSHAKES, TLS_TO_PLAIN_TEXT

MAX_HEAD = 65_536
"""The maximum size of a request's first line and headers together, in bytes."""

LINGER = 2.0
"""Seconds for which the server discards what a client still sends after the last answer of a connection."""

_SPECIAL_HEADERS = frozenset({b"expect", b"origin"})
"""Headers that need more than one answer, or headers in the answer."""

_TLS_HANDSHAKE = b"\x16\x03"
"""The first bytes of a client that uses TLS."""

_FIRST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}) \S+ HTTP/1\.[01]\r?\n")
_STAND_IN = b"TRACE"
"""A method that the parser knows and no route has. It replaces methods that the parser does not know."""

_HEAD_TOO_LARGE = f"Request Header Fields Too Large: at most {MAX_HEAD} bytes"


class HttpProtocol(UvicornConnection):
    """A connection that copes with slow, verbose, broken and vanished clients.

    A head that takes too long gets 408, a head that is too long 431, and malformed or ambiguous HTTP 400.
    These answers are sent after the answers to earlier requests. If an answer ends the connection while its
    client is still sending, the server discards the client's data for a while. Otherwise the client would see
    its connection reset before it has read the answer.

    Args:
        limits: The limits of the connection.
        refusals: Decides which requests the connection refuses before an app sees them.
    """

    def __init__(self, *arguments: Any, limits: HttpLimits, refusals: EarlyRefusals, **named: Any) -> None:
        super().__init__(*arguments, overloaded=_too_many_connections, **named)
        self._limits = limits
        self._refusals = refusals
        self._refusal = b""
        self._has_refused = False
        self._arrival_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_size = 0
        self._arriving = 0
        self._unknown_method = b""
        self._lingering = False
        self._has_ended_sending = False
        self._ends_at_eof = False
        self._stall_watch: StallWatch

    def connection_made(self, transport: Any) -> None:
        """Waits for the first request."""
        super().connection_made(transport)
        self._stall_watch = StallWatch(transport, self._limits.idle_timeout)
        self._start_timer(self._limits.header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops all timers."""
        self._stop_timer()
        self._stall_watch.stop()
        super().connection_lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Still answers a client that only closed its sending side, as `nc -N` does.

        `end_at_eof` changes this.
        """
        if self.is_idle or self.is_receiving_body or self.is_tls or self._ends_at_eof:
            return None
        self._has_ended_sending = True
        self.close_after_answer()
        return True

    def end_at_eof(self, ends: bool) -> None:
        """Sets whether a client that closes its sending side is gone.

        It is for a stream, which could go on for days: nothing else would say that the client is gone.
        """
        self._ends_at_eof = ends
        if ends and self._has_ended_sending:
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Parses bytes from the client."""
        if self._lingering:
            return
        self.stop_idle_timer()
        self._has_refused = False
        self._arriving = len(data)
        rest = self._parse(data)
        while rest:
            rest = self._parse(rest)
        if self._in_head:
            self._count_head(len(data))
        if (
            self._arrival_timer is None  # Most heads arrive whole, and need no timer.
            and self.is_idle
            and not self._lingering
            and (self._in_head or not self._has_refused)
        ):
            self._start_timer(self._limits.header_timeout)

    def _parse(self, data: bytes | memoryview) -> bytes | memoryview:
        """Feeds the parser. Returns the bytes that a new parser must parse."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.replace_parser()  # The server offers no upgrade: the connection continues with HTTP/1.1.
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

    def on_header(self, name: bytes, value: bytes) -> None:
        """Is called by the parser with a header, or with a trailer after a chunked body, which is ignored.

        The app has already begun then, and a proxy that checks headers may not have checked trailers.
        """
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Is called by the parser at the end of a head. Starts the app, or decides to refuse the request."""
        self._in_head = False
        self._stop_timer()
        if self._refusals.is_due() and self._may_be_refused_here():
            self._refusal = self._refusals.refuse(self.parser.get_method(), self.url)
            if self._refusal:
                self._start_timer(self._limits.read_timeout)
                return
        self.stop_idle_timer()  # A refusal of an earlier request in the same data may have started it.
        app = _head_too_large if self._is_head_too_large() else self._refusal_of_head()
        method, self._unknown_method = self._unknown_method, b""
        self.start_request(self.end, app=app, method=method)

    def _may_be_refused_here(self) -> bool:
        """Whether the connection itself can refuse the request, as soon as its body has arrived."""
        return (
            self.may_answer_itself(self._limits.max_connections)
            and not self._unknown_method
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not any(name in _SPECIAL_HEADERS for name, _ in self.headers)
        )

    def on_body(self, body: bytes) -> None:
        """Is called by the parser with a part of a body."""
        if not self._refusal:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Is called by the parser at the end of a request."""
        if not self._refusal:
            super().on_message_complete()
            return
        self._stop_timer()
        self.write_answer(429, self._refusal)
        self._refusal = b""
        self._has_refused = True
        self.end_answer()

    def pause_writing(self) -> None:
        """Is called by the transport when many bytes wait for the client to read them."""
        super().pause_writing()
        self._stall_watch.start()

    def resume_writing(self) -> None:
        """Is called by the transport when the client has read most of the waiting bytes."""
        super().resume_writing()
        self._stall_watch.stop()
        self._stall_watch.start()

    def on_closing(self) -> None:
        """Is called when the connection is ending."""
        self._stall_watch.start()

    def end(self) -> None:
        """Ends the connection after an answer, so that even a client that still sends can read the answer."""
        if self.transport.is_closing():
            return
        if not (self._lingering or self.is_receiving_body):
            self.transport.close()
            return
        self._lingering = True
        self._stop_timer()
        self.drop_queued_requests()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.resume_reading()
        self.loop.call_later(LINGER, self.transport.abort)

    def _count_head(self, size: int) -> None:
        """Counts bytes of a head that has not ended yet, and refuses a head that is too large."""
        if self._lingering:
            return
        # Bytes that arrived together with the end of the previous request are not counted.
        self._head_size = 0 if self._head_size < 0 else self._head_size + size
        if self._head_size > MAX_HEAD:
            self._refuse(431, _HEAD_TOO_LARGE)

    def _is_head_too_large(self) -> bool:
        # Only a head that came in several parts, or in a large one, can be too large.
        if self._head_size < 0 and self._arriving <= MAX_HEAD:
            return False
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD

    def _refusal_of_head(self) -> Callable[..., Any] | None:
        problem = problem_of(self.headers, self.parser.get_http_version())
        return _refusing(400, problem) if problem else None

    def _with_known_method(self, data: bytes) -> bytes:
        """Replaces a method that the parser does not know, so that the app can answer the request."""
        match = _FIRST_LINE.match(data)
        # After a refusal in the same data, it is unknown where in the data the method begins.
        is_first = self.is_idle and not self._has_refused
        if data.startswith(_TLS_HANDSHAKE) and not self.is_tls:
            FAILED_HANDSHAKES.add(TLS_TO_PLAIN_TEXT)
        if match is None or not is_first or match[1] == _STAND_IN:
            self._refuse(400, "Bad Request")
            return b""
        self.replace_parser()
        self._unknown_method = match[1]
        return _STAND_IN + data[match.end(1) :]

    def _refuse(self, status: int, message: str) -> None:
        """Answers malformed data once all earlier requests are answered, and ends the connection."""
        self._stop_timer()
        if not (self.is_idle or self.is_receiving_body):
            self.close_after_answer()
            return
        if self.may_write_answer:
            headers, body = _final_answer(status, message)
            self.write_answer(status, header_lines(headers) + b"\r\n" + body)
        self.abandon_request()
        self._lingering = True
        self.end()

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._arrival_timer = self.loop.call_later(seconds, self._end_arrival)

    def _stop_timer(self) -> None:
        if self._arrival_timer is not None:
            self._arrival_timer.cancel()
            self._arrival_timer = None

    def _end_arrival(self) -> None:
        """Ends a connection whose client has taken too long to send a request."""
        self._arrival_timer = None
        if self.transport is None or self.transport.is_closing():
            return
        if self._in_head or self._refusal:
            self._refuse(408, "Request Timeout")
        else:
            self.transport.close()
            if self.is_tls:  # A silent client would not answer the end of TLS either.
                self.loop.call_later(LINGER, self.transport.abort)


def _final_answer(status: int, message: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Returns the headers and the body of an error after which the connection ends."""
    body = error_body(message)
    headers = [
        (b"content-type", b"application/json; charset=UTF-8"),
        http_reason_header(status),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    return headers, body


def _refusing(status: int, message: str, *more_headers: tuple[bytes, bytes]) -> Callable[..., Any]:
    """Returns an ASGI app that gives one answer and ends the connection."""
    headers, body = _final_answer(status, message)
    headers.extend(more_headers)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


_head_too_large = _refusing(431, _HEAD_TOO_LARGE)
_too_many_connections = _refusing(
    503, "Service Unavailable: too many connections, try again later", (b"retry-after", b"1")
)
