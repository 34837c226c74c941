"""The method table: each method of a servicer, wrapped once for gRPC and HTTP.

The wrapper does the same for both: it identifies the caller, reads the request, passes the gate, logs
failures, and turns unexpected exceptions into INTERNAL errors.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeAlias

import structlog
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from spincycle_grpc.errors import InternalError, ResourceExhaustedError, SpinCycleError, Status
from spincycle_server.identity import (
    METHOD_ACCESS,
    READ_BY_SERVERS,
    Authentication,
    CallerDeniedError,
    MethodAccess,
)
from spincycle_server.logs import writes_debug
from spincycle_server.rpc.context import CallContext
from spincycle_server.rpc.current_streams import OpenStreams, requests_while_current
from spincycle_server.rpc.gate import Gate
from spincycle_server.rpc.traced_calls import TracedCalls
from spincycle_server.telemetry.calls import CallMetrics, MethodCalls
from spincycle_server.telemetry.spans import Spans

logger = structlog.get_logger(__name__)

UnaryHandler: TypeAlias = Callable[[Any, CallContext], Awaitable[Any]]
StreamHandler: TypeAlias = Callable[[AsyncIterator[Any], CallContext], AsyncIterator[Any]]
ServerStreamHandler: TypeAlias = Callable[[Any, CallContext], AsyncIterator[Any]]
ReadRequest: TypeAlias = Callable[[], Awaitable[Any]]
OnDenied: TypeAlias = Callable[[str, CallContext, SpinCycleError, object], None]

_SERVER_FAULTS = frozenset({Status.INTERNAL, Status.UNKNOWN, Status.UNAVAILABLE})
_DENIALS = frozenset({Status.UNAUTHENTICATED, Status.PERMISSION_DENIED})


def ignore_denial(method: str, context: CallContext, error: SpinCycleError, request: object) -> None:
    """Does nothing with a denial, because this server has no audit log."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method, ready to be called.

    Attributes:
        descriptor: The method in the contract.
        request_type: The class of its request.
        access: Who may call it.
        call: The wrapped method. A unary method takes a function that reads the request and the context: the
            function is called after the caller is identified, so that strangers cost nothing. A method with
            a stream of responses takes the same, and returns an iterator of responses. A method with two
            streams takes an iterator of requests instead. The method raises only SpinCycleError,
            CancelledError and what the function raises.
        is_stream: Whether requests and responses are streams.
        is_server_stream: Whether only the responses are a stream.
    """

    descriptor: MethodDescriptor
    request_type: type[Message]
    access: MethodAccess
    call: Callable[..., Any]
    is_stream: bool
    is_server_stream: bool

    @property
    def is_reserved(self) -> bool:
        """Whether other servers call it. The gate has a reserve for its calls."""
        return self.access is MethodAccess.SERVER


class MethodTable:
    """The methods of one service.

    Args:
        service: The contract.
        servicer: Has a coroutine for each unary method, and an async generator for each streaming method.
        gate: Admits calls of unary methods.
        authentication: Identifies callers. None: callers are anonymous and may call everything.
        access: Who may call each method, by its full name.
        on_denied: Called for each denied call, with the method's full name, the context, the error, and the
            request; None if the request was not read.
        spans: Records the spans of calls; None to record none.

    Attributes:
        calls: Counts the calls.

    Raises:
        KeyError: `access` has no entry for a method.
    """

    def __init__(
        self,
        service: ServiceDescriptor,
        servicer: object,
        gate: Gate,
        authentication: Authentication | None = None,
        *,
        access: Mapping[str, MethodAccess] = METHOD_ACCESS,
        on_denied: OnDenied = ignore_denial,
        spans: Spans | None = None,
    ) -> None:
        self.service = service
        self.calls = CallMetrics()
        self._gate = gate
        self._streams = OpenStreams(gate)
        self._authentication = authentication or Authentication()
        self._servicer = servicer
        self._on_denied = on_denied
        self._spans = spans
        self.methods: Mapping[str, Method] = {
            descriptor.name: self._method(
                descriptor, getattr(servicer, descriptor.name), access[descriptor.full_name]
            )
            for descriptor in service.methods
        }

    def for_servers(self) -> MethodTable:
        """Returns a table of the methods that other servers call, for them alone. It may be empty."""
        table = copy(self)
        table.methods = {
            name: method for name, method in self.methods.items() if method.access is MethodAccess.SERVER
        } | {
            method.name: self._method(method, getattr(self._servicer, method.name), MethodAccess.SERVER)
            for method in self.service.methods
            if method.full_name in READ_BY_SERVERS
        }
        return table

    def _method(
        self, descriptor: MethodDescriptor, handler: Callable[..., Any], access: MethodAccess
    ) -> Method:
        is_stream = descriptor.client_streaming and descriptor.server_streaming
        is_server_stream = descriptor.server_streaming and not descriptor.client_streaming
        wrapped: Callable[..., Callable[..., Any]] = self._unary
        if descriptor.server_streaming:
            wrapped = self._server_stream if is_server_stream else self._stream
        return Method(
            descriptor=descriptor,
            request_type=GetMessageClass(descriptor.input_type),
            access=access,
            call=self._traced(descriptor, access, wrapped(descriptor, handler, access)),
            is_stream=is_stream,
            is_server_stream=is_server_stream,
        )

    def _traced(
        self, descriptor: MethodDescriptor, access: MethodAccess, call: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Returns a call that records its span. A runner's stream of reports has none: it lasts for days."""
        if self._spans is None or descriptor.client_streaming:
            return call
        traced = TracedCalls(self._spans, descriptor, is_of_servers=access is MethodAccess.SERVER)
        return traced.stream(call) if descriptor.server_streaming else traced.unary(call)

    async def _identified(self, name: str, access: MethodAccess, context: CallContext) -> CallContext:
        """Returns the context with the caller. Turns unexpected exceptions into INTERNAL errors."""
        try:
            identity = await self._authentication.identify(access, context.credentials)
        except SpinCycleError:
            raise
        except Exception as error:
            raise _unexpected(name, None, error) from error
        return context.of(identity)

    def _unary(
        self, descriptor: MethodDescriptor, handler: UnaryHandler, access: MethodAccess
    ) -> Callable[[ReadRequest, CallContext], Awaitable[Any]]:
        name = descriptor.full_name
        is_reserved = access is MethodAccess.SERVER
        may_be_anybody = self._authentication.admits_anybody(access)
        recall = self._authentication.recall_for(access)
        log_success = _log_call_of_server if is_reserved and _is_of_original(descriptor) else _log_call
        counted = self.calls.of(name)

        async def call(read: ReadRequest, context: CallContext) -> Message:
            started = time.monotonic()
            request: Message | None = None
            try:
                self._gate.check(is_reserved=is_reserved)
                credentials = context.credentials
                if not may_be_anybody or credentials.repeated or credentials.certificate is not None:
                    known = None if recall is None else recall(credentials)
                    context = (
                        context.of(known)
                        if known is not None
                        else await self._identified(name, access, context)
                    )
                request = await read()
                answer = await self._answer(name, handler, request, context, is_reserved=is_reserved)
            except BaseException as error:
                counted.failed(context.transport, time.monotonic() - started, error)
                if isinstance(error, ResourceExhaustedError):
                    self._gate.refusals.add(error)
                elif isinstance(error, SpinCycleError):
                    self._log_failure(name, request, context, error, started)
                raise
            counted.succeeded(context.transport, time.monotonic() - started)
            log_success(name, request, context, started)
            return answer

        return call

    async def _answer(
        self, name: str, handler: UnaryHandler, request: Any, context: CallContext, *, is_reserved: bool
    ) -> Message:
        """Calls the servicer. The gate counts the call from here, so slow uploads hold no place."""
        self._gate.enter(is_reserved=is_reserved)
        try:
            if context.is_throttled and not is_reserved and (turn := self._gate.turn()) is not None:
                await turn
            answer: Message = await handler(request, context)
            return answer
        except SpinCycleError:
            raise
        except Exception as error:
            raise _unexpected(name, request, error) from error
        finally:
            self._gate.leave()

    def _stream(
        self, descriptor: MethodDescriptor, handler: StreamHandler, access: MethodAccess
    ) -> StreamHandler:
        name = descriptor.full_name
        counted = self.calls.of(name)

        async def call(requests: AsyncIterator[Any], context: CallContext) -> AsyncIterator[Message]:
            started = time.monotonic()
            with _counted(counted, context.transport):
                try:
                    context = await self._identified(name, access, context)
                    identity = context.identity
                    # Other servers send at least one message for each renewal of the lease.
                    answers = (
                        handler(requests_while_current(requests, identity), context)
                        if access is MethodAccess.SERVER
                        else self._streams.while_current(handler(requests, context), identity)
                    )
                    async for answer in answers:
                        yield answer
                except SpinCycleError as error:
                    self._log_failure(name, None, context, error, started)
                    raise
                except Exception as error:
                    raise _unexpected(name, None, error) from error

        return call

    def _server_stream(
        self, descriptor: MethodDescriptor, handler: ServerStreamHandler, access: MethodAccess
    ) -> Callable[[ReadRequest, CallContext], AsyncIterator[Message]]:
        name = descriptor.full_name
        is_reserved = access is MethodAccess.SERVER
        counted = self.calls.of(name)

        async def call(read: ReadRequest, context: CallContext) -> AsyncIterator[Message]:
            started = time.monotonic()
            request: Message | None = None
            with _counted(counted, context.transport):
                try:
                    self._gate.check(is_reserved=is_reserved)
                    context = await self._identified(name, access, context)
                    request = await read()
                    # The stream takes no place of the gate, because it may stay open for days.
                    answers = self._streams.while_current(handler(request, context), context.identity)
                    async with contextlib.aclosing(answers):
                        async for answer in answers:
                            yield answer
                except SpinCycleError as error:
                    # A server that stops ends thousands of streams: they have one line together.
                    if isinstance(error, ResourceExhaustedError) or self._gate.is_closed:
                        self._gate.refusals.add(error)
                    else:
                        self._log_failure(name, request, context, error, started)
                    raise
                except Exception as error:
                    raise _unexpected(name, request, error) from error
            _log_call(name, request, context, started)

        return call

    def _log_failure(
        self, name: str, request: object, context: CallContext, error: SpinCycleError, started: float
    ) -> None:
        if error.status is Status.UNAUTHENTICATED and not self._gate.refusals.may_have_line():
            self._gate.refusals.add(error)
        elif not isinstance(error, _UnexpectedError):
            _log_failure(name, request, context, error, started)
        if error.status in _DENIALS:
            if isinstance(error, CallerDeniedError):
                context = context.of(error.identity)
            self._on_denied(name, context, error, request)


def _is_of_original(descriptor: MethodDescriptor) -> bool:
    """Whether the original has a route for a method. Servers of this project call the others very often."""
    return descriptor.GetOptions().HasExtension(annotations_pb2.http)


def _log_call(name: str, request: object, context: CallContext, started: float) -> None:
    if writes_debug():
        logger.debug("call", method=name, transport=context.transport, seconds=time.monotonic() - started)


def _log_call_of_server(name: str, request: object, context: CallContext, started: float) -> None:
    """Logs a call of another server, which changes a request by itself, with its peer."""
    chain = getattr(request, "job_chain", None) or getattr(request, "suspended_job_chain", None)
    logger.info(
        "server called",
        method=name,
        request_id=getattr(request, "request_id", "") or getattr(chain, "request_id", ""),
        transport=context.transport,
        peer=context.peer,
        seconds=round(time.monotonic() - started, 6),
    )


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
        **_trace_fields(context),
    )


def _trace_fields(context: CallContext) -> dict[str, str]:
    trace = context.trace
    return {} if trace is None else {"trace_id": trace.trace_id, "span_id": trace.span_id}


class _UnexpectedError(InternalError):
    """Stands for an unexpected exception, which the log already has."""


@contextlib.contextmanager
def _counted(counted: MethodCalls, transport: str) -> Iterator[None]:
    """Counts a stream when it has ended, with its error if there is one."""
    try:
        yield
    except BaseException as error:
        counted.stream_failed(transport, error)
        raise
    counted.stream_ended(transport)


def _unexpected(name: str, request: object, error: Exception) -> InternalError:
    """Logs an unexpected exception with its traceback. Returns the error that the caller gets instead."""
    request_id = getattr(request, "request_id", "")
    logger.error("call raised an unexpected exception", method=name, request_id=request_id, exc_info=error)
    return _UnexpectedError("internal error: see the server's log for details", request_id=request_id)
