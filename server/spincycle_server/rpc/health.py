"""The health service, with limits: everybody may call it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2

from spincycle_grpc.errors import InvalidArgumentError, ResourceExhaustedError, SpinCycleError
from spincycle_server.rpc.status import abort
from spincycle_server.telemetry.limits import HEALTH_STREAMS, LimitUse

MAX_WATCHES = 1000
"""The maximum number of open streams of Watch."""

MAX_REQUEST_BYTES = 8192
"""The maximum size of one request."""

LAST_ANSWER_TIMEOUT = 1.0
"""Seconds that the last answer to a Watch may take when the server stops."""

REQUEST_TIMEOUT = 2.0
"""Seconds within which a request must arrive. gRPC keeps up to 64 MiB of it in memory until then."""

_Context = grpc.aio.ServicerContext[Any, Any]


class Health:
    """Answers whether the server and its services serve."""

    def __init__(self) -> None:
        self._servicer = health.aio.HealthServicer()
        self._watches = 0
        self._stopping = asyncio.Event()

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limit and the number of open streams of Watch."""
        return (LimitUse(HEALTH_STREAMS, MAX_WATCHES, self._watches),)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Adds the service to a server."""
        # The handlers of streams read the request themselves, so they can limit the time.
        handlers: dict[str, Any] = {
            "Check": grpc.stream_unary_rpc_method_handler(
                _behavior(self._servicer.Check), response_serializer=_serialize
            ),
            "Watch": grpc.stream_stream_rpc_method_handler(
                _behavior(self._watch), response_serializer=_serialize
            ),
        }
        server.add_registered_method_handlers(health.SERVICE_NAME, handlers)

    async def set(self, service: str, status: Any) -> None:
        """Sets what the service answers about a service; "" for the server as a whole."""
        await self._servicer.set(service, status)

    async def enter_graceful_shutdown(self) -> None:
        """Answers NOT_SERVING from now on, and ends the streams of Watch after this answer."""
        await self._servicer.enter_graceful_shutdown()
        self._stopping.set()

    async def _watch(self, request: health_pb2.HealthCheckRequest, context: _Context) -> None:
        if self._watches >= MAX_WATCHES:
            raise ResourceExhaustedError(
                f"the limit of {MAX_WATCHES} streams of Watch is reached: call Check",
                reason="TOO_MANY_HEALTH_STREAMS",
            )
        self._watches += 1
        try:
            await self._watch_until_stop(request, _Watcher(context))
        finally:
            self._watches -= 1

    async def _watch_until_stop(self, request: health_pb2.HealthCheckRequest, watcher: _Watcher) -> None:
        watch = asyncio.ensure_future(self._servicer.Watch(request, cast(_Context, watcher)))
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((watch, stop), return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                await watch
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_ANSWER_TIMEOUT):
                    await watcher.not_serving.wait()
        finally:
            stop.cancel()
            watch.cancel()


class _Watcher:
    """Sends the answers to a Watch. It has the method of a gRPC context that Watch uses.

    Attributes:
        not_serving: Whether the last answer was that the service does not serve, or is unknown.
    """

    def __init__(self, context: _Context) -> None:
        self._context = context
        self.not_serving = asyncio.Event()

    async def write(self, answer: health_pb2.HealthCheckResponse) -> None:
        """Sends an answer."""
        await self._context.write(answer)
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            self.not_serving.clear()
        else:
            self.not_serving.set()


def _behavior(
    call: Callable[[health_pb2.HealthCheckRequest, _Context], Awaitable[Any]],
) -> Callable[[AsyncIterator[bytes], _Context], Awaitable[Any]]:
    async def behavior(_: AsyncIterator[bytes], context: _Context) -> Any:
        try:
            return await call(await _request(context), context)
        except SpinCycleError as error:
            await abort(context, error)

    return behavior


async def _request(context: _Context) -> health_pb2.HealthCheckRequest:
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            data = await context.read()
        if isinstance(data, bytes) and len(data) <= MAX_REQUEST_BYTES:
            return health_pb2.HealthCheckRequest.FromString(data)
    except (DecodeError, TimeoutError):
        pass
    raise InvalidArgumentError(
        f"the request is not a valid HealthCheckRequest of at most {MAX_REQUEST_BYTES} bytes, sent within "
        f"{REQUEST_TIMEOUT:g} s",
        reason="BAD_MESSAGE",
    )


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
