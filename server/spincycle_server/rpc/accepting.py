"""Calls by gRPC, taken in many at a time.

grpc.aio asks the library below it for one call, waits for it over a few turns of the event loop, and only
then asks for the next: however fast calls are done, no more come in than one in a few turns, and a busy
server's turns are long. So more of the same questions are asked here, and what they bring is handed to
grpc.aio as its own are. A server's interceptors and its limit of calls do not see these calls.

There is no public way to do so. What is used of the library's inside is named here alone, and only for the
version of it that this was written for: with another one, calls come in one at a time, as ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]

logger = structlog.get_logger(__name__)

QUESTIONS = 128
"""Calls of one method that the library may hand over in one turn; the next are asked for at once."""

KNOWN_VERSION = "1.85.1"
"""The version of grpcio whose inside is as it is used here."""


class Acceptors:
    """Takes calls of some methods in, beside the server itself.

    Args:
        server: The server; the methods are registered with it. It has no interceptors.
        handlers: Its handlers by the full name of the method, "/package.Service/Method".
    """

    def __init__(
        self, server: grpc.aio.Server, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        self._server = server
        self._handlers = dict(handlers)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Takes calls in from now on, until the server stops. The server must have been started."""
        if grpc.__version__ != KNOWN_VERSION:
            logger.warning(
                f"calls by gRPC are taken in one at a time: for more, install grpcio=={KNOWN_VERSION}",
                grpcio=grpc.__version__,
            )
            return
        inner = self._server._server  # type: ignore[attr-defined]
        resolver = cygrpc._MethodResolver([], self._handlers)
        for name in self._handlers:
            for _ in range(QUESTIONS - 1):  # The server asks one itself.
                self._run(self._accept(inner, resolver, name))

    async def _accept(self, inner: Any, resolver: Any, name: str) -> None:
        loop = asyncio.get_running_loop()
        method = name.encode()
        while inner.is_running():
            try:
                state = await inner._request_registered_call(method)
            except cygrpc._RequestCallError:  # So ends a question when the server stops, or its call at once.
                continue
            answering = cygrpc._handle_rpc(name, resolver, (), state, loop, False)
            self._run(cygrpc._schedule_rpc_coro(answering, state, loop, name))

    def _run(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)  # The loop alone would not keep it.
        task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error(
                "a call by gRPC was lost, and others may be taken in more slowly: restart the server",
                exc_info=task.exception(),
            )
