"""The HTTP server: uvicorn, run in this process's event loop and stopped by the app."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from spincycle_grpc.errors import UnavailableError
from spincycle_grpc.version import API_VERSION
from spincycle_server.gateway.http_limits import HttpLimits
from spincycle_server.gateway.http_protocol import HttpProtocol
from spincycle_server.gateway.uvicorn_internals import UvicornServer, require_known_uvicorn
from spincycle_server.telemetry.limits import HTTP_CONNECTIONS, LimitUse

if TYPE_CHECKING:
    from spincycle_server.gateway.refusals import EarlyRefusals
    from spincycle_server.listening import Address


ACCEPTED_TOGETHER = 16
"""Connections that the server accepts in one turn of the event loop. libuv accepts one connection per turn
and listener, and the turns of a busy server are long. So this many listeners share one queue."""

_START_POLL = 0.001
"""Seconds between checks whether uvicorn listens."""


class HttpServer:
    """Serves an ASGI app.

    Args:
        app: The ASGI app that answers requests.
        address: Where to listen. With port 0 the system chooses a port.
        tls: The context of TLS; None for plain HTTP.
        limits: The limits of connections.
        refusals: Decides which requests are refused before the app sees them.
        listener: A socket that listens at the address already, and that other processes share; None to open
            one.
        sharers: The number of processes that share it.

    Attributes:
        port: The port on which the server listens, 0 before `start` and for a unix socket.
    """

    def __init__(
        self,
        app: Any,
        address: Address,
        tls: ssl.SSLContext | None,
        limits: HttpLimits,
        refusals: EarlyRefusals,
        *,
        listener: socket.socket | None = None,
        sharers: int = 1,
    ) -> None:
        idle_timeout: Any = limits.idle_timeout  # uvicorn declares an int, and passes it to a timer.
        protocol: Any = partial(HttpProtocol, limits=limits, refusals=refusals)
        self._address = address
        self._listener = listener
        # Otherwise one process would take all connections that wait, and the others none.
        self._accepted_together = max(1, ACCEPTED_TOGETHER // sharers)
        self._config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            proxy_headers=False,  # Anyone can forge headers that name another peer.
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            headers=[("X-Spincycle-Version", API_VERSION)],  # of all answers, including uvicorn's own
            timeout_keep_alive=idle_timeout,
            limit_concurrency=limits.max_connections,
            ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        )
        self._server = UvicornServer(self._config, limits.header_timeout)
        self._max_connections = limits.max_connections
        self._serving: asyncio.Task[None] | None = None
        self.port = 0

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limit and the number of open connections."""
        return (LimitUse(HTTP_CONNECTIONS, self._max_connections, self._server.connections),)

    async def start(self) -> None:
        """Starts to listen.

        Raises:
            UnavailableError: The server cannot listen on the address, or does not support the installed
                uvicorn.
        """
        require_known_uvicorn(self._config)
        listener = self._listener or listening_socket(self._address)
        self.port = 0 if self._address.is_unix else listener.getsockname()[1]
        listeners = [listener, *(listener.dup() for _ in range(self._accepted_together - 1))]
        self._serving = asyncio.create_task(self._server.serve(listeners))
        while not self._server.is_listening:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(_START_POLL)

    async def stop(self, grace: float) -> None:
        """Stops accepting requests. Waits for requests in flight, for at most max(`grace`, 1) seconds."""
        if self._serving is None:
            return
        self._server.begin_stop(max(1, int(grace)))
        await self._serving


def listening_socket(address: Address) -> socket.socket:
    """Opens a socket that listens at an address.

    Raises:
        UnavailableError: That is not possible. Reason: ADDRESS_IN_USE.
    """
    internet = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    family = socket.AF_UNIX if address.is_unix else internet
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address.socket_path if address.is_unix else (address.host, address.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise _cannot_listen(address, error) from error
    listener.setblocking(False)
    return listener


def _cannot_listen(address: Address, error: OSError) -> UnavailableError:
    why = (
        "the address is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
    )
    return UnavailableError(f"cannot listen on {address}: {why}", reason="ADDRESS_IN_USE")
