"""The method table: each method of a servicer, wrapped once for gRPC and HTTP.

The wrapper does the same for both: it passes the gate, authenticates the caller, logs failures, and turns
unexpected exceptions into INTERNAL errors.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from spincycle_grpc.auth import Authenticator
from spincycle_grpc.errors import InternalError, ResourceExhaustedError, SpinCycleError, Status
from spincycle_server.rpc.context import CallContext
from spincycle_server.rpc.gate import Gate

logger = structlog.get_logger(__name__)

UnaryHandler: TypeAlias = Callable[[Any, CallContext], Awaitable[Any]]
StreamHandler: TypeAlias = Callable[[AsyncIterator[Any], CallContext], AsyncIterator[Any]]

_SERVER_FAULTS = frozenset({Status.INTERNAL, Status.UNKNOWN, Status.UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class Method:
    """One method, ready to be called.

    Attributes:
        descriptor: The method in the contract.
        request_type: The class of its request.
        call: The wrapped method. It raises only SpinCycleError and CancelledError. If a request could not be
            parsed, the error is passed in its place: the method raises it once the caller is authenticated.
        is_stream: Whether requests and responses are streams.
        is_reserved: Whether other servers call it. The gate has a reserve for its calls.
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
        servicer: Has a coroutine for each unary method, and an async generator for each streaming method.
        gate: Admits calls of unary methods.
        authenticator: Identifies callers; if None, callers have neither name nor roles.
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
            else self._unary(descriptor.full_name, handler, is_reserved=is_reserved),
            is_stream=is_stream,
            is_reserved=is_reserved,
        )

    async def _authenticated(self, context: CallContext) -> CallContext:
        if self._authenticator is None:
            return context
        caller = await self._authenticator.authenticate(context.metadata, context.peer)
        return replace(context, caller=caller)

    def _unary(self, name: str, handler: UnaryHandler, *, is_reserved: bool) -> UnaryHandler:
        gate = self._gate

        async def call(request: Message | SpinCycleError, context: CallContext) -> Message:
            gate.enter(is_reserved=is_reserved)
            started = time.monotonic()
            try:
                if context.is_throttled and not is_reserved:
                    await gate.wait_turn()
                if self._authenticator is not None:
                    context = await self._authenticated(context)
                answer: Message = await handler(_parsed(request), context)
            except ResourceExhaustedError as error:
                gate.refusals.add(error)
                raise
            except SpinCycleError as error:
                _log_failure(name, request, context, error, started)
                raise
            except Exception as error:
                raise _internal_error(name, request, error) from error
            finally:
                gate.leave()
            logger.debug("call", method=name, transport=context.transport, seconds=time.monotonic() - started)
            return answer

        return call

    def _stream(self, name: str, handler: StreamHandler) -> StreamHandler:
        async def call(
            requests: AsyncIterator[Message | SpinCycleError], context: CallContext
        ) -> AsyncIterator[Message]:
            started = time.monotonic()
            try:
                context = await self._authenticated(context)
                async for answer in handler((_parsed(request) async for request in requests), context):
                    yield answer
            except SpinCycleError as error:
                _log_failure(name, None, context, error, started)
                raise
            except Exception as error:
                raise _internal_error(name, None, error) from error

        return call


def _parsed(request: Message | SpinCycleError) -> Message:
    """Returns a request; raises the error that stands in its place if it could not be parsed."""
    if isinstance(request, SpinCycleError):
        raise request
    return request


def _log_failure(
    name: str, request: object, context: CallContext, error: SpinCycleError, started: float
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


def _internal_error(name: str, request: object, error: Exception) -> InternalError:
    """Logs an unexpected exception with its traceback. Returns the error that the caller gets instead."""
    request_id = getattr(request, "request_id", "")
    logger.error("call raised an unexpected exception", method=name, request_id=request_id, exc_info=error)
    return InternalError("internal error: see the server's log for details", request_id=request_id)
