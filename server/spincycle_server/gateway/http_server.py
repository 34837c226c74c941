"""The HTTP server: uvicorn, run inside this process's loop and ended by us."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from spincycle_grpc.errors import UnavailableError
from spincycle_grpc.version import API_VERSION
from spincycle_server.gateway.http_protocol import HttpLimits, HttpProtocol

if TYPE_CHECKING:
    from spincycle_server.gateway.refusals import EarlyRefusals
    from spincycle_server.listening import Address, TlsFiles


ACCEPTED_TOGETHER = 16
"""Connections that are accepted in one turn of the loop: libuv accepts one a turn and listener, and turns of
a busy server are long. So the listener is there as often; all share one queue."""


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
        limits: What a client may do.
        refusals: Says which calls are refused before they are read.
    """

    def __init__(  # noqa: PLR0917 (each is named above)
        self,
        app: Any,
        address: Address,
        tls: TlsFiles,
        limits: HttpLimits,
        refusals: EarlyRefusals,
    ) -> None:
        idle_timeout: Any = limits.idle_timeout  # uvicorn asks for an int, and hands it to a timer
        protocol: Any = partial(HttpProtocol, limits=limits, refusals=refusals)
        self._address = address
        self._config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            proxy_headers=False,  # The peer is who connects: headers that name another can be made up.
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            headers=[("X-Spincycle-Version", API_VERSION)],  # of all answers, those of uvicorn too
            timeout_keep_alive=idle_timeout,
            limit_concurrency=limits.max_connections,
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
        listeners = [listener, *(listener.dup() for _ in range(ACCEPTED_TOGETHER - 1))]
        self._serving = asyncio.create_task(self._server.serve(listeners))
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
