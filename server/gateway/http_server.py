"""The HTTP server: uvicorn, run inside this process's loop and ended by us."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from spincycle_grpc.errors import UnavailableError

if TYPE_CHECKING:
    from server.listening import Address, TlsFiles

HEADER_TIMEOUT = 10.0
"""Seconds that a request's first line and headers may take to arrive."""

KEEP_ALIVE = 75
"""Seconds that a connection may be idle between requests."""


class _PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a limit on how long the headers of a request may take."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        if self._header_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._start_timer()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._stop_timer()
        self._header_timer = self.loop.call_later(HEADER_TIMEOUT, self._give_up)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self) -> None:
        self._header_timer = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: signals are the app's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves an ASGI app.

    Args:
        app: What answers.
        address: Where to listen; port 0 lets the system choose.
        tls: The certificate; empty: plain HTTP.
        max_connections: Connections at a time; more get 503.
    """

    def __init__(self, app: Any, address: Address, tls: TlsFiles, *, max_connections: int = 4000) -> None:
        self._address = address
        self._config = uvicorn.Config(
            app,
            http=_PatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            timeout_keep_alive=KEEP_ALIVE,
            limit_concurrency=max_connections,
            ssl_certfile=tls.cert_file or None,
            ssl_keyfile=tls.key_file or None,
            ssl_ca_certs=tls.ca_file or None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if tls.ca_file else ssl.CERT_NONE,
        )
        self._server = _Server(self._config)
        self._serving: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Listens.

        Raises:
            UnavailableError: The address cannot be had.
        """
        listener = self._listen()
        self.port = listener.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve([listener]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(0.001)

    async def stop(self, grace: float) -> None:
        """Takes no more requests; returns when those at hand are answered or the grace (seconds) is over."""
        if self._serving is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, int(grace))
        self._server.should_exit = True
        await self._serving

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._address.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._address.host, self._address.port))
            listener.listen(2048)
        except OSError as error:
            listener.close()
            raise self._refused(error) from error
        listener.setblocking(False)
        return listener

    def _refused(self, error: OSError) -> UnavailableError:
        why = (
            "the address is in use"
            if error.errno == errno.EADDRINUSE
            else (error.strerror or str(error)).lower()
        )
        return UnavailableError(f"cannot listen on {self._address}: {why}", reason="ADDRESS_IN_USE")
