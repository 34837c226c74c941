"""What both servers have: two ways in, work in the background."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog

from spincycle_server.config import Config
from spincycle_server.credentials import server_credentials
from spincycle_server.gateway import ErrorFormat, GatewayApp, HttpLimits, HttpServer, with_cors
from spincycle_server.listening import Address
from spincycle_server.rpc import Gate, GrpcServer, MethodTable

logger = structlog.get_logger(__name__)


class Served:
    """One server's two ways in.

    Args:
        name: The name of the server in the log.
        title: The title of its OpenAPI document.
        error_format: The format of errors in its JSON API.
        tables: What it serves.
        gate: What lets calls in.
        address: Where to serve HTTP.
        grpc_address: Where to serve gRPC; None: made from the former.
    """

    def __init__(  # noqa: PLR0917 (each is named above)
        self,
        name: str,
        title: str,
        error_format: ErrorFormat,
        tables: Sequence[MethodTable],
        gate: Gate,
        address: Address,
        grpc_address: Address | None,
    ) -> None:
        self._name = name
        self._title = title
        self._error_format = error_format
        self._tables = tables
        self._gate = gate
        self._grpc_server: GrpcServer | None = None
        self.http_address = address
        self.grpc_address = grpc_address or address.for_grpc()

    async def start(self, stack: contextlib.AsyncExitStack, config: Config) -> None:
        """Serves until the stack is left. The addresses then have the ports that the system chose."""
        app = GatewayApp(
            self._tables,
            title=self._title,
            error_format=self._error_format,
            max_body=config.server_max_body,
            max_bodies=config.server_max_bodies,
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
        """Has the health of the server tell whether it can do its work."""
        if self._grpc_server is not None:
            await self._grpc_server.set_serving(serving)

    async def refuse_calls(self) -> None:
        """Answers new calls that the server shuts down, and has its health say so."""
        self._gate.close()
        await self.set_serving(False)

    async def finish_calls(self, limit: float) -> None:
        """Refuses new calls, and returns when those at hand are answered or the limit (seconds) is over."""
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


def background(stack: contextlib.AsyncExitStack, name: str, work: Coroutine[Any, Any, None]) -> None:
    """Runs work until the stack is left. Work that fails ends the server, which is no use without it."""
    task = asyncio.create_task(work, name=name)

    def after(ended: asyncio.Task[None]) -> None:
        if not ended.cancelled() and (error := ended.exception()) is not None:
            logger.critical("server cannot go on", part=name, exc_info=error)
            os.kill(os.getpid(), signal.SIGTERM)

    async def end() -> None:
        task.cancel()
        await asyncio.wait({task})

    task.add_done_callback(after)
    stack.push_async_callback(end)
