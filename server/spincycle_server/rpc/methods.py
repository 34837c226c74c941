"""The table of methods: each method of a servicer, wrapped once for both ways in.

What wraps a method is the same for gRPC and for HTTP: the gate that closes when the server shuts
down, the limit of calls at a time, authentication, the log, and what an error becomes.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from spincycle_grpc.errors import (
    InternalError,
    ResourceExhaustedError,
    SpinCycleError,
    Status,
)
from spincycle_server.rpc.context import Authenticator, CallContext, Caller
from spincycle_server.rpc.gate import Gate

logger = structlog.get_logger(__name__)

UnaryHandler: TypeAlias = Callable[[Any, CallContext], Awaitable[Any]]
StreamHandler: TypeAlias = Callable[[AsyncIterator[Any], CallContext], AsyncIterator[Any]]

_SERVER_FAULTS = frozenset({Status.INTERNAL, Status.UNKNOWN, Status.UNAVAILABLE})
_NOBODY = Caller()


@dataclass(frozen=True, slots=True)
class Method:
    """One method, ready to be called.

    Attributes:
        descriptor: The method of the contract.
        request_type: The class of its request.
        call: The wrapped method. It raises nothing but SpinCycleError and CancelledError. In place of a
            broken request it takes an error, which it raises when the caller is known.
        is_stream: Whether it takes and gives streams.
        is_reserved: Whether other servers call it, and it has places of its own.
    """

    descriptor: MethodDescriptor
    request_type: type[Message]
    call: Callable[..., Any]
    is_stream: bool
    is_reserved: bool


class MethodTable:
    """The methods of one service.

    Args:
        service: The contract.
        servicer: Has a coroutine for each method, or an async generator for a streaming one.
        gate: Lets calls in.
        authenticator: Finds out who calls.
        reserved: The names of methods that other servers call.
    """

    def __init__(
        self,
        service: ServiceDescriptor,
        servicer: object,
        gate: Gate,
        authenticator: Authenticator | None = None,
        *,
        reserved: Collection[str] = (),
    ) -> None:
        self.service = service
        self._reserved = reserved
        self._gate = gate
        self._authenticator = authenticator
        self.methods: Mapping[str, Method] = {
            descriptor.name: self._method(descriptor, getattr(servicer, descriptor.name))
            for descriptor in service.methods
        }

    def _method(self, descriptor: MethodDescriptor, handler: Callable[..., Any]) -> Method:
        is_stream = descriptor.client_streaming and descriptor.server_streaming
        is_reserved = descriptor.name in self._reserved
        return Method(
            descriptor=descriptor,
            request_type=GetMessageClass(descriptor.input_type),
            call=self._stream(descriptor.full_name, handler)
            if is_stream
            else self._unary(descriptor, handler, reserved=is_reserved),
            is_stream=is_stream,
            is_reserved=is_reserved,
        )

    async def _identified(self, context: CallContext) -> CallContext:
        if self._authenticator is None:
            return context
        caller = await self._authenticator.authenticate(context.metadata, context.peer)
        return CallContext(caller, context.transport, context.metadata, context.peer)

    def _unary(self, descriptor: MethodDescriptor, handler: UnaryHandler, *, reserved: bool) -> UnaryHandler:
        name = descriptor.full_name
        gate = self._gate

        async def call(request: Message, context: CallContext) -> Message:
            gate.enter(reserved=reserved)
            started = time.monotonic()
            try:
                if not reserved:
                    await gate.turn(context)
                if self._authenticator is not None:
                    context = await self._identified(context)
                answer: Message = await handler(_whole(request), context)
            except ResourceExhaustedError as error:
                gate.refusals.add(error)
                raise
            except SpinCycleError as error:
                _log_failure(name, request, context, error, started)
                raise
            except Exception as error:
                raise _unexpected(name, request, error) from error
            finally:
                gate.leave()
            logger.debug("call", method=name, transport=context.transport, seconds=time.monotonic() - started)
            return answer

        return call

    def _stream(self, name: str, handler: StreamHandler) -> StreamHandler:
        async def call(requests: AsyncIterator[Message], context: CallContext) -> AsyncIterator[Message]:
            started = time.monotonic()
            try:
                context = await self._identified(context)
                async for answer in handler((_whole(request) async for request in requests), context):
                    yield answer
            except SpinCycleError as error:
                _log_failure(name, None, context, error, started)
                raise
            except Exception as error:
                raise _unexpected(name, None, error) from error

        return call


def _whole(request: Any) -> Any:
    if isinstance(request, SpinCycleError):
        raise request
    return request


def _log_failure(
    name: str, request: Message | None, context: CallContext, error: SpinCycleError, started: float
) -> None:
    write = logger.warning if error.status in _SERVER_FAULTS else logger.info
    write(
        "call failed",
        method=name,
        request_id=error.request_id or getattr(request, "request_id", ""),
        reason=error.reason,
        error=error.message,
        transport=context.transport,
        peer=context.peer,
        seconds=round(time.monotonic() - started, 6),
    )


def _unexpected(name: str, request: Message | None, error: Exception) -> InternalError:
    request_id = getattr(request, "request_id", "")
    logger.error("call broke", method=name, request_id=request_id, exc_info=error)
    return InternalError("internal error: the server's log says more", request_id=request_id)
