"""Accepting many gRPC calls in one turn of the event loop.

grpc.aio requests one call at a time from the C core, and needs several turns of the event loop before it
requests the next. This limits a busy server, because its turns are long. `Acceptors` therefore keeps more
requests for calls open, and hands each accepted call to grpc.aio as grpc.aio does itself. Interceptors and
grpc.aio's `maximum_concurrent_rpcs` do not see these calls.

grpcio has no public API for this. Only this module uses grpcio's private names. It does so only with a patch
release of the known version in which all of these names exist with the expected parameters. With any other
grpcio, calls are accepted one at a time, as grpc.aio does by itself.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]

logger = structlog.get_logger(__name__)

REQUESTED_CALLS = 128
"""How many calls of one method the C core can hand over in one turn of the event loop."""

KNOWN_VERSION = "1.85.1"
"""The version of grpcio in the lock file. This module was written against its private names."""

_EXPECTED_PARAMETERS = {
    "AioServer._request_registered_call": ("self", "method"),
    "AioServer.is_running": ("self",),
    "_handle_rpc": (
        "method_name",
        "method_resolver",
        "interceptors",
        "rpc_state",
        "loop",
        "concurrency_exceeded",
    ),
    "_schedule_rpc_coro": ("rpc_coro", "rpc_state", "loop", "method_name"),
}
"""The private functions of `cygrpc` that this module calls, and their parameters."""

_EXPECTED_CLASSES = ("_MethodResolver", "_RequestCallError")


def unusable_because(inner: object) -> str:
    """Returns why the installed grpcio's private names cannot be used, or "" if they can.

    Args:
        inner: The attribute `_server` of a grpc.aio.Server.
    """
    if _series(grpc.__version__) != _series(KNOWN_VERSION):
        return f"grpcio {grpc.__version__} is not a patch release of {_series(KNOWN_VERSION)}"
    for name in _EXPECTED_CLASSES:
        if not inspect.isclass(getattr(cygrpc, name, None)):
            return f"grpcio {grpc.__version__} has no class cygrpc.{name}"
    for name, parameters in _EXPECTED_PARAMETERS.items():
        if _parameters(name) != parameters:
            return f"cygrpc.{name} of grpcio {grpc.__version__} has other parameters"
    if not isinstance(inner, cygrpc.AioServer):
        return f"grpc.aio.Server of grpcio {grpc.__version__} holds no cygrpc.AioServer"
    return ""


def _series(version: str) -> str:
    return version.rpartition(".")[0]


def _parameters(name: str) -> tuple[str, ...]:
    """Returns the parameters of a function of `cygrpc`; none if it does not exist."""
    function: Any = cygrpc
    for part in name.split("."):
        function = getattr(function, part, None)
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ()


class Acceptors:
    """Accepts calls of some methods, in addition to the server itself.

    Args:
        server: The server on which the methods are registered. It must have no interceptors.
        handlers: The handlers by full method name, "/package.Service/Method".
    """

    def __init__(
        self, server: grpc.aio.Server, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        self._server = server
        self._handlers = dict(handlers)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Accepts calls until the server stops. Call it after the server has started.

        Logs at level info if the installed grpcio does not support this: calls still work, but more slowly,
        and most operators do not choose the version of grpcio.
        """
        inner: Any = getattr(self._server, "_server", None)
        if reason := unusable_because(inner):
            logger.info("gRPC calls are accepted one at a time, which limits their rate", reason=reason)
            return
        resolver = cygrpc._MethodResolver([], self._handlers)
        loop = asyncio.get_running_loop()
        for name in self._handlers:
            for _ in range(REQUESTED_CALLS - 1):  # The server itself requests one more.
                self._run(self._accept(inner, resolver, name, loop), loop)

    async def _accept(self, inner: Any, resolver: Any, name: str, loop: asyncio.AbstractEventLoop) -> None:
        method = name.encode()
        while inner.is_running():
            try:
                state = await inner._request_registered_call(method)
            except cygrpc._RequestCallError:  # The server is stopping, or the call ended before we got it.
                continue
            answering = cygrpc._handle_rpc(name, resolver, (), state, loop, False)
            self._run(cygrpc._schedule_rpc_coro(answering, state, loop, name), loop)
            del answering, state  # Otherwise they are kept until the next call.

    def _run(self, coroutine: Any, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(coroutine)
        self._tasks.add(task)  # The event loop holds only a weak reference to the task.
        task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error(
                "accepting a gRPC call failed: restart the server if gRPC calls have become slow",
                exc_info=task.exception(),
            )
