"""The two endpoints of a server: HTTP and gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from spincycle_server.config import Config
from spincycle_server.credentials import server_credentials
from spincycle_server.gateway import ErrorFormat, GatewayApp, HttpLimits, HttpServer, with_cors
from spincycle_server.listening import Address
from spincycle_server.rpc import Gate, GrpcServer, MethodTable

logger = structlog.get_logger(__name__)


class ServerEndpoints:
    """Serves the methods of one server over HTTP and gRPC.

    Args:
        tables: The methods.
        gate: Limits the concurrent calls of both endpoints together.
        address: The address of HTTP.
        grpc_address: The address of gRPC; None for the HTTP address with a port that is 10 higher.
        name: The name of the server in the log.
        title: The title of the OpenAPI document.
        error_format: The format of errors in the JSON API.

    Attributes:
        http_address: The address of HTTP. `start` replaces port 0 with the port that the system chose.
        grpc_address: The address of gRPC, likewise.
    """

    def __init__(
        self,
        tables: Sequence[MethodTable],
        gate: Gate,
        address: Address,
        grpc_address: Address | None,
        *,
        name: str,
        title: str,
        error_format: ErrorFormat,
    ) -> None:
        self._tables = tables
        self._gate = gate
        self._name = name
        self._title = title
        self._error_format = error_format
        self._grpc_server: GrpcServer | None = None
        self.http_address = address
        self.grpc_address = grpc_address or address.for_grpc()

    async def start(self, stack: contextlib.AsyncExitStack, config: Config) -> None:
        """Starts to serve. The endpoints stop when the stack closes."""
        app = GatewayApp(
            self._tables,
            title=self._title,
            error_format=self._error_format,
            max_body=config.server_max_body,
            max_bodies=config.server_max_bodies,
            max_values=config.server_max_values,
            on_refused=self._gate.refusals.add,
            body_timeout=config.server_read_timeout,
            call_timeout=config.server_call_timeout,
        )
        grpc_server = self._grpc_server = GrpcServer(
            self._tables, str(self.grpc_address), server_credentials(config.server_tls)
        )
        http_server = HttpServer(
            with_cors(app, config.server_cors_origins),
            self.http_address,
            config.server_tls,
            _limits(config),
            app.early_refusals(self._gate),
        )
        await grpc_server.start()
        stack.push_async_callback(grpc_server.stop, config.server_stop_timeout)
        await http_server.start()
        stack.push_async_callback(http_server.stop, config.server_stop_timeout)
        await grpc_server.set_serving(True)
        self.http_address = Address(self.http_address.host, http_server.port)
        self.grpc_address = Address(self.grpc_address.host, grpc_server.port)
        logger.info("listening", server=self._name, http=str(self.http_address), grpc=str(self.grpc_address))

    async def set_serving(self, serving: bool) -> None:
        """Sets the health status: SERVING or NOT_SERVING."""
        if self._grpc_server is not None:
            await self._grpc_server.set_serving(serving)

    async def refuse_calls(self) -> None:
        """Refuses new calls because the server shuts down, and sets the health status to NOT_SERVING."""
        self._gate.close()
        await self.set_serving(False)

    async def finish_calls(self, limit: float) -> None:
        """Refuses new calls and waits for the calls in flight, for at most `limit` seconds."""
        await self.refuse_calls()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._gate.wait_idle()


def _limits(config: Config) -> HttpLimits:
    return HttpLimits(
        header_timeout=config.server_header_timeout,
        read_timeout=config.server_read_timeout,
        idle_timeout=config.server_idle_timeout,
        max_connections=config.server_max_connections,
    )
