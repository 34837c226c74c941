"""The gRPC server: it serves method tables, health and reflection."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2

from spincycle_grpc.channels import MAX_MESSAGE_BYTES
from spincycle_grpc.errors import SpinCycleError, UnavailableError
from spincycle_server.identity import Credentials
from spincycle_server.large_work import LARGE, run_large
from spincycle_server.rpc.accepting import Acceptors
from spincycle_server.rpc.certificates import certificate_of
from spincycle_server.rpc.context import CallContext, ReceivedRequest
from spincycle_server.rpc.health import Health
from spincycle_server.rpc.input_limits import InputLimits
from spincycle_server.rpc.methods import Method, MethodTable
from spincycle_server.rpc.received_messages import received
from spincycle_server.rpc.reflection import Reflection
from spincycle_server.rpc.request_messages import parsed, read_request
from spincycle_server.rpc.responses import serialized
from spincycle_server.rpc.status import abort
from spincycle_server.rpc.stream_sends import StreamSends
from spincycle_server.telemetry.limits import LimitUse

MAX_PENDING = 2000
"""The maximum number of calls of one method that wait to be accepted. gRPC cancels further calls."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Only uncompressed messages: 60 KB of gzip become 64 MB, before anybody knows who calls.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.server.max_pending_requests", MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

MIN_PING_INTERVAL = 5.0
"""Seconds between a client's pings without data. gRPC disconnects a client that pings more often.

Clients whose pings are 10 s apart, which is Go's minimum, keep their connection even if some arrive late.
"""

_DEFAULT_LIMITS = InputLimits()


class GrpcServer:
    """Serves method tables over gRPC.

    Args:
        tables: The methods to serve.
        address: host:port to listen on. With port 0 the system chooses a port.
        credentials: For TLS; None for plaintext.
        with_reflection: Whether callers may ask for the contracts.
        limits: The limits of users' requests.
        max_streams: The maximum number of concurrent calls on one connection. A client queues further calls.
        max_connections: The maximum number of concurrent connections. gRPC closes further ones.
        handshake_timeout: Seconds within which a new connection must have set up TLS and HTTP/2.
        shares_port: Whether other processes of this server listen on the same port. The system gives each of
            them a part of the connections.

    Attributes:
        port: The port on which the server listens, 0 before `start`.
    """

    def __init__(
        self,
        tables: Sequence[MethodTable],
        address: str,
        credentials: grpc.ServerCredentials | None = None,
        *,
        with_reflection: bool = True,
        limits: InputLimits = _DEFAULT_LIMITS,
        max_streams: int = 1000,
        max_connections: int = 4000,
        handshake_timeout: float = 10.0,
        shares_port: bool = False,
    ) -> None:
        self._address = address
        self._credentials = credentials
        self._server = grpc.aio.server(
            options=(
                *_OPTIONS,
                ("grpc.so_reuseport", int(shares_port)),
                ("grpc.http2.min_ping_interval_without_data_ms", int(MIN_PING_INTERVAL * 1000)),
                ("grpc.max_concurrent_streams", max_streams),
                ("grpc.max_allowed_incoming_connections", max_connections),
                ("grpc.server_handshake_timeout_ms", int(handshake_timeout * 1000)),
            )
        )
        by_full_name: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        sends = StreamSends()
        for table in tables:
            service = table.service.full_name
            handlers = {name: _handler(method, limits, sends) for name, method in table.methods.items()}
            self._server.add_registered_method_handlers(service, handlers)
            by_full_name |= {f"/{service}/{name}": handler for name, handler in handlers.items()}
        self._acceptors = Acceptors(self._server, by_full_name)
        self._health = Health()
        self._health.add_to(self._server)
        self._names = [table.service.full_name for table in tables]
        self._limits: list[Callable[[], Iterable[LimitUse]]] = [self._health.limits]
        if with_reflection:
            reflection = Reflection([*self._names, health.SERVICE_NAME])
            reflection.add_to(self._server)
            self._limits.append(reflection.limits)
        self.port = 0

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limits of streams for health and reflection, and their use."""
        return [use for limits in self._limits for use in limits()]

    async def start(self) -> None:
        """Starts to listen and to accept calls.

        Raises:
            UnavailableError: The server cannot listen on the address.
        """
        try:
            if self._credentials is None:
                self.port = self._server.add_insecure_port(self._address)
            else:
                self.port = self._server.add_secure_port(self._address, self._credentials)
        except RuntimeError as error:
            raise UnavailableError(
                f"cannot listen on {self._address}: it is in use, or not an address of this machine"
                + (
                    "; or gRPC does not support the kind of key in server.tls.key_file"
                    if self._credentials
                    else ""
                ),
                reason="ADDRESS_IN_USE",
            ) from error
        await self._server.start()
        self._acceptors.start()

    async def set_serving(self, serving: bool) -> None:
        """Sets what the health service answers, for the server as a whole and for each service."""
        state = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *self._names):
            await self._health.set(name, state)

    async def stop(self, grace: float) -> None:
        """Stops accepting calls. Waits for calls in flight to end, for at most `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)


def _handler(method: Method, limits: InputLimits, sends: StreamSends) -> grpc.RpcMethodHandler[Any, Any]:
    # Without a deserializer and a serializer, gRPC takes and hands over bytes. Requests are parsed once the
    # caller is identified, and a response that is too large becomes an error. A unary
    # method has the handler of a stream, because gRPC receives the whole message before it calls a unary
    # handler, so strangers could fill the memory. Clients notice no difference.
    if method.is_stream:
        return grpc.stream_stream_rpc_method_handler(_streaming(method))
    if method.is_server_stream:
        return grpc.stream_stream_rpc_method_handler(_server_streaming(method, limits, sends))
    return grpc.stream_unary_rpc_method_handler(_unary(method, limits))


def _call_context(context: grpc.aio.ServicerContext[Any, Any]) -> CallContext:
    metadata: dict[str, str] = {}
    repeated: set[str] = set()
    for key, value in context.invocation_metadata() or ():
        if key in metadata:
            repeated.add(key)
        if isinstance(value, str):
            metadata[key] = value
    return CallContext(
        transport="grpc",
        credentials=Credentials(
            metadata, context.peer(), certificate_of(context.auth_context()), frozenset(repeated)
        ),
        received=ReceivedRequest(),
    )


def _unary(method: Method, limits: InputLimits) -> Callable[..., Any]:
    async def behavior(_: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            called = _call_context(context)
            answer = await method.call(_read(method, limits, context, called.received), called)
            if called.received.size > LARGE:
                return await run_large(serialized, method, answer)
            return serialized(method, answer)
        except SpinCycleError as error:
            await abort(context, error)

    return behavior


def _read(
    method: Method,
    limits: InputLimits,
    context: grpc.aio.ServicerContext[Any, Any],
    request: ReceivedRequest,
) -> Callable[[], Awaitable[Message]]:
    """Returns a function that reads the one request of a call."""

    async def read() -> Message:
        if not method.request_type.DESCRIPTOR.fields:
            return method.request_type()  # Everybody may call Version, with a message of any size.
        data = await received(context, None if method.is_reserved else limits)
        request.size = len(data)
        return await read_request(method, data, limits)

    return read


def _server_streaming(
    method: Method, limits: InputLimits, sends: StreamSends
) -> Callable[..., Awaitable[None]]:
    async def behavior(_: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> None:
        called = _call_context(context)
        call = method.call(_read(method, limits, context, called.received), called)
        try:
            async with contextlib.aclosing(call) as answers:
                async for answer in answers:
                    await sends.send(context, serialized(method, answer))
        except SpinCycleError as error:
            await abort(context, error)

    return behavior


def _streaming(method: Method) -> Callable[..., AsyncIterator[Any]]:
    async def behavior(
        requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        try:
            async for answer in method.call(_parsed_all(method, requests), _call_context(context)):
                yield serialized(method, answer)
        except SpinCycleError as error:
            await abort(context, error)

    return behavior


async def _parsed_all(method: Method, requests: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    """Yields the requests of a stream.

    A generator expression would begin to read when it is made, and gRPC warns of a stream that is begun and
    not read.
    """
    async for data in requests:
        yield parsed(method.request_type, data)
