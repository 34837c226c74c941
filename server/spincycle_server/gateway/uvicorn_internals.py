"""The names inside uvicorn on which the HTTP server depends. Only this module uses them.

uvicorn neither bounds the head of a request nor answers a client before it has read the request, and it has
no public API to add this. So `UvicornConnection` extends uvicorn's protocol class, and gives its state and
its steps names of our own. `http_protocol` uses only these names.

The server refuses to start with a uvicorn that this module does not know. A fallback to plain uvicorn would
silently remove the limits on heads, on idle time and on connections that stall.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Self

import httptools
import uvicorn

from spincycle_grpc.errors import UnavailableError
from spincycle_server.gateway.answer_transport import AnswerTransport
from spincycle_server.gateway.errors import Header, header_lines
from spincycle_server.identity import PeerCertificate, certificate_of_der

KNOWN_VERSION = "0.54.0"
"""The version of uvicorn in the lock file. Its other patch releases are used if they have the same names."""

_KNOWN_SERIES = KNOWN_VERSION.rpartition(".")[0]


def _unsupported(why: str) -> UnavailableError:
    return UnavailableError(
        f"the installed uvicorn {uvicorn.__version__} is not supported, because it {why}: "
        f"run pip install uvicorn=={KNOWN_VERSION}",
        reason="UNKNOWN_UVICORN",
    )


def _require_known_series() -> None:
    if uvicorn.__version__.rpartition(".")[0] != _KNOWN_SERIES:
        raise _unsupported(f"is not a release of {_KNOWN_SERIES}")


_require_known_series()  # before the imports below, which another version may not have
try:
    from uvicorn.protocols.http.flow_control import FlowControl, service_unavailable
    from uvicorn.protocols.http.httptools_impl import (
        HEADER_RE,
        HEADER_VALUE_RE,
        STATUS_LINE,
        HttpToolsProtocol,
        RequestResponseCycle,
    )
    from uvicorn.server import ServerState
except ImportError as error:
    raise _unsupported(f"lacks a name ({error})") from error

_WITHOUT_BODY = frozenset({204, 304})
"""Statuses of answers that have no body."""

_DER = 2
"""The encoding of a certificate that Python's `_ssl` calls ENCODING_DER."""

SHARED_ATTRIBUTES = frozenset({"headers", "loop", "parser", "transport", "url"})
"""The attributes of uvicorn's protocol that subclasses of `UvicornConnection` may use."""

_PROTOCOL_NAMES = SHARED_ATTRIBUTES | {
    "_start_asgi_task",
    "_unset_keepalive_if_required",
    "app",
    "connections",
    "cycle",
    "flow",
    "on_headers_complete",
    "on_response_complete",
    "pipeline",
    "scheme",
    "scope",
    "server_state",
    "timeout_keep_alive_handler",
}
_CYCLE_NAMES = {
    "chunked_encoding",
    "disconnected",
    "expected_content_length",
    "keep_alive",
    "message_event",
    "more_body",
    "on_response",
    "response_complete",
    "response_started",
    "scope",
    "transport",
    "waiting_for_100_continue",
}
_FLOW_NAMES = {"resume_reading", "write_paused"}
_SERVER_NAMES = {
    "capture_signals",
    "config",
    "serve",
    "server_state",
    "should_exit",
    "started",
    "startup",
}
_CONFIG_NAMES = {"backlog", "http_protocol_class", "lifespan_class", "ssl"}
"""Names of a loaded configuration."""


def require_known_uvicorn(config: uvicorn.Config) -> None:
    """Checks that the installed uvicorn has all names that this module uses.

    Raises:
        UnavailableError: It is another version, or lacks a name. Reason: UNKNOWN_UVICORN.
    """
    _require_known_series()
    if missing := _missing_names(config):
        raise _unsupported(f"lacks {', '.join(missing)}")


def _missing_names(config: uvicorn.Config) -> list[str]:
    protocol = HttpToolsProtocol(config, ServerState(), {}, asyncio.get_running_loop())
    cycle_arguments: Any = dict.fromkeys(inspect.signature(RequestResponseCycle).parameters)
    cycle = RequestResponseCycle(**cycle_arguments)
    transport: Any = None
    expected: list[tuple[object, frozenset[str] | set[str]]] = [
        (protocol, _PROTOCOL_NAMES - {"headers", "url"}),
        (cycle, _CYCLE_NAMES),
        (FlowControl(transport), _FLOW_NAMES),
        (uvicorn.Server(config), _SERVER_NAMES),
        (config, _CONFIG_NAMES),
    ]
    return [
        f"{type(owner).__name__}.{name}"
        for owner, names in expected
        for name in sorted(names)
        if not hasattr(owner, name)
    ]


class _UnknownLength:
    """The length of an answer that ends with its connection. uvicorn compares it with what it sends."""

    def __lt__(self, other: object) -> bool:
        return False

    def __sub__(self, other: object) -> Self:
        return self

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def _issuers(tls: Any) -> tuple[bytes, ...]:
    """Returns the certificates that a client sent after its own. Python makes this public in 3.13."""
    if hasattr(tls, "get_unverified_chain"):
        return tuple(tls.get_unverified_chain()[1:])
    chain = tls._sslobj.get_unverified_chain() or ()
    return tuple(certificate.public_bytes(_DER) for certificate in chain[1:])


class UvicornServer(uvicorn.Server):
    """uvicorn's server without its signal handlers: the app handles signals.

    Args:
        config: The configuration.
        handshake_timeout: Seconds that a TLS handshake may take. uvicorn has no option for it.
    """

    def __init__(self, config: uvicorn.Config, handshake_timeout: float) -> None:
        super().__init__(config)
        self._handshake_timeout = handshake_timeout

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens on the sockets. Is called by uvicorn."""
        config = self.config
        protocol: Any = config.http_protocol_class
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                partial(
                    protocol,
                    config=config,
                    server_state=self.server_state,
                    app_state=self.lifespan.state,
                    _loop=loop,
                ),
                sock=listener,
                ssl=config.ssl,
                backlog=config.backlog,
                ssl_handshake_timeout=None if config.ssl is None else self._handshake_timeout,
            )
            for listener in sockets or ()
        ]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone."""
        yield

    @property
    def is_listening(self) -> bool:
        """Whether the server accepts connections."""
        return self.started

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self.server_state.connections)

    def begin_stop(self, grace: int) -> None:
        """Tells the server to stop: it waits for requests in flight, for at most `grace` seconds."""
        self.config.timeout_graceful_shutdown = grace
        self.should_exit = True


class UvicornConnection(HttpToolsProtocol):
    """uvicorn's protocol class, with names of our own for its state and its steps.

    Subclasses override the callbacks of asyncio.Protocol and of httptools' parser, and `on_closing`. Of
    uvicorn's attributes they use only those in `SHARED_ATTRIBUTES`.

    Args:
        overloaded: The ASGI app that answers while there are too many connections.
    """

    def __init__(self, *arguments: Any, overloaded: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._overloaded = overloaded
        self._answering: Any = None
        self._certificate: PeerCertificate | None = None

    def connection_made(self, transport: Any) -> None:
        """Reads the client's certificate, which TLS has verified."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        self._certificate = certificate_of_der(der, _issuers(tls)) if der else None

    @property
    def is_idle(self) -> bool:
        """Whether no request waits for its answer."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def is_receiving_body(self) -> bool:
        """Whether some of the newest request's body has not arrived yet."""
        return self.cycle is not None and self.cycle.more_body

    def has_received(self, receive: object) -> bool:
        """Whether the whole body of a request has arrived. `receive` is that of the request."""
        cycle: Any = getattr(receive, "__self__", None)
        return cycle is not None and cycle is self._answering and not cycle.more_body

    @property
    def may_write_answer(self) -> bool:
        """Whether an answer that is written now would neither cut another one in two nor overtake it."""
        return self.is_idle or not (self.cycle.response_started or self.pipeline)

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme == "https"

    def may_answer_itself(self, max_connections: int) -> bool:
        """Whether the connection can answer a request without an app.

        If so, it is idle, its client reads its answers, and the server has fewer than `max_connections`.
        """
        cycle = self.cycle
        return (
            (cycle is None or cycle.response_complete)
            and not self.flow.write_paused
            and len(self.connections) < max_connections
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the app that the client is gone. Of pipelined requests, uvicorn tells only the newest."""
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    stop_idle_timer = HttpToolsProtocol._unset_keepalive_if_required
    """Stops the timer that ends an idle connection. An alias, because a call would cost time."""

    def replace_parser(self) -> None:
        """Starts a new parser. It expects the first line of a request."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it

    def start_request(self, end: Callable[[], None], *, app: Any = None, method: bytes = b"") -> None:
        """Starts the app for the request whose head was parsed, or queues it behind earlier requests.

        Args:
            end: Called to end the connection after the answer, if the client may still be sending a body.
            app: Answers instead of the server's app, whatever the target of the request is.
            method: The method of the request; if it is empty, the parser's.
        """
        servers_app, target = self.app, self.url
        if app is not None:
            self.app, self.url = app, b"/"
        elif target == b"*":
            self.url = b"/*"  # uvicorn cannot parse a target without a slash.
        super().on_headers_complete()
        self.app = servers_app
        self.scope["spincycle.connection"] = self  # type: ignore[typeddict-unknown-key]  # ours
        if self._certificate is not None:
            self.scope["spincycle.certificate"] = self._certificate  # type: ignore[typeddict-unknown-key]  # ours
        if target == b"*":
            self.scope["raw_path"] = target
        if method:
            self.scope["method"] = method.decode()
        may_have_body = self.scope["method"] not in ("GET", "HEAD")
        close = end if may_have_body else self.transport.close
        has_body = self.scope["method"] != "HEAD"
        self.cycle.transport = AnswerTransport(self.transport, close, has_body=has_body)  # type: ignore[assignment]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, self._overloaded if app is service_unavailable else app)

    def write_answer(self, status: int, rest: bytes) -> None:
        """Writes an answer that does not come from an app.

        Args:
            status: The HTTP status.
            rest: The rest of the answer, after the headers that all answers have.
        """
        self.transport.write(STATUS_LINE[status] + header_lines(self.server_state.default_headers) + rest)

    def write_whole(self, send: object, status: int, headers: Sequence[Header], body: bytes) -> bool:
        """Writes the answer of an app at once, as two calls of ASGI's `send` would.

        That takes a third of the time: uvicorn looks at each header of each answer several times.

        Args:
            send: The `send` of the request.
            status: The HTTP status.
            headers: The headers, of which one is Content-Length.
            body: The body.

        Returns:
            Whether it is written. If not, use `send`: for an answer without a body, before the end of a
            connection, for a client that does not read, or if uvicorn changes or refuses a header.
        """
        cycle: Any = getattr(send, "__self__", None)
        if (
            cycle is None
            or cycle is not self._answering
            or cycle.response_started
            or cycle.disconnected
            or self.flow.write_paused
            or not cycle.keep_alive
            or cycle.scope["method"] == "HEAD"
            or status in _WITHOUT_BODY
        ):
            return False
        names, values = zip(*headers, strict=True)
        all_names = b"".join(names)
        is_valid = not (HEADER_RE.search(all_names) or HEADER_VALUE_RE.search(b"".join(values)))
        if not is_valid or b"connection" in names or not all_names.islower():
            return False
        cycle.response_started = True
        cycle.chunked_encoding = False
        cycle.waiting_for_100_continue = False
        head = STATUS_LINE[status] + header_lines((*self.server_state.default_headers, *headers)) + b"\r\n"
        cycle.transport.write(head)
        cycle.transport.write(body)
        cycle.response_complete = True
        cycle.message_event.set()
        cycle.on_response()
        return True

    def close_after_answer(self) -> None:
        """Ends the connection once the newest request is answered."""
        self.cycle.keep_alive = False

    def begin_stream(self) -> None:
        """Prepares for an answer of unknown length, after which the connection ends."""
        self._answering.keep_alive = False
        if self._answering.scope["http_version"] == "1.0":  # has no chunks
            self._answering.chunked_encoding = False
            self._answering.expected_content_length = _UnknownLength()

    def abort(self) -> None:
        """Closes the connection at once."""
        self.transport.abort()

    def abandon_request(self) -> None:
        """Tells the app that the client of the newest request is gone."""
        if not self.is_idle:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def drop_queued_requests(self) -> None:
        """Drops requests that wait for the answers to earlier ones."""
        self.pipeline.clear()

    def resume_reading(self) -> None:
        """Reads from the client again if uvicorn paused it."""
        self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """Is called by uvicorn after each answer."""
        super().on_response_complete()
        if self.transport.is_closing():
            self.on_closing()

    end_answer = on_response_complete
    """Makes the connection ready for the next request, after `write_answer`."""

    def timeout_keep_alive_handler(self) -> None:
        """Is called by uvicorn to end an idle connection."""
        super().timeout_keep_alive_handler()
        self.on_closing()

    def on_closing(self) -> None:
        """Is called when the connection is ending. The client may not have read all of its answers yet."""
