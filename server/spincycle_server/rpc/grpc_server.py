"""The gRPC server: the methods of the tables, reflection and health."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from spincycle_grpc.channels import MAX_MESSAGE_BYTES
from spincycle_grpc.errors import InvalidArgumentError, SpinCycleError, UnavailableError
from spincycle_server.rpc.accepting import Acceptors
from spincycle_server.rpc.context import CallContext
from spincycle_server.rpc.methods import Method, MethodTable
from spincycle_server.rpc.status import status_of

MAX_PENDING = 2000
"""Calls of one method that have come and were not taken in yet; the library cancels what is beyond."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.server.max_pending_requests", MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class GrpcServer:
    """Serves method tables over gRPC.

    Args:
        tables: What to serve.
        address: host:port; port 0 lets the system choose.
        credentials: For TLS; None: plain text.
    """

    def __init__(
        self, tables: Sequence[MethodTable], address: str, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self._address = address
        self._credentials = credentials
        self._server = grpc.aio.server(options=_OPTIONS)
        by_full_name: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for table in tables:
            service = table.service.full_name
            handlers = {name: _handler(method) for name, method in table.methods.items()}
            self._server.add_registered_method_handlers(service, handlers)
            by_full_name |= {f"/{service}/{name}": handler for name, handler in handlers.items()}
        self._acceptors = Acceptors(self._server, by_full_name)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._names = [table.service.full_name for table in tables]
        reflection.enable_server_reflection(
            (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self.port = 0

    async def start(self) -> None:
        """Listens.

        Raises:
            UnavailableError: The address cannot be had.
        """
        try:
            if self._credentials is None:
                self.port = self._server.add_insecure_port(self._address)
            else:
                self.port = self._server.add_secure_port(self._address, self._credentials)
        except RuntimeError as error:
            raise UnavailableError(
                f"cannot listen on {self._address}: the address is in use or not of this machine",
                reason="ADDRESS_IN_USE",
            ) from error
        await self._server.start()
        self._acceptors.start()

    async def set_serving(self, serving: bool) -> None:
        """Tells the health service whether the server can do its work."""
        state = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *self._names):
            await self._health.set(name, state)

    async def stop(self, grace: float) -> None:
        """Takes no more calls, and returns when those at hand have ended or the grace (seconds) is over."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)


def _handler(method: Method) -> grpc.RpcMethodHandler[Any, Any]:
    options: dict[str, Callable[..., Any]] = {
        "request_deserializer": partial(_deserialize, method.request_type),
        "response_serializer": _serialize,
    }
    if method.is_stream:
        return grpc.stream_stream_rpc_method_handler(_streaming(method), **options)
    return grpc.unary_unary_rpc_method_handler(_unary(method), **options)


def _deserialize(request_type: type[Message], data: bytes) -> Message | SpinCycleError:
    """Returns a request, or the error of one that is broken, which the method raises in its turn.

    If it was raised here, the library would answer with a Python error.
    """
    try:
        return request_type.FromString(data)
    except DecodeError:
        return InvalidArgumentError(
            f"the request is no {request_type.DESCRIPTOR.full_name}: send what the .proto files say",
            reason="BAD_MESSAGE",
        )


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _context(context: grpc.aio.ServicerContext[Any, Any]) -> CallContext:
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    return CallContext(transport="grpc", metadata=metadata, peer=context.peer())


def _unary(method: Method) -> Callable[..., Any]:
    async def behavior(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await method.call(request, _context(context))
        except SpinCycleError as error:
            await context.abort_with_status(status_of(error))

    return behavior


def _streaming(method: Method) -> Callable[..., AsyncIterator[Any]]:
    async def behavior(
        requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        try:
            async for answer in method.call(requests, _context(context)):
                yield answer
        except SpinCycleError as error:
            await context.abort_with_status(status_of(error))

    return behavior
