"""The spans of calls: one for each call whose trace is sampled, over gRPC and HTTP alike."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from spincycle_grpc.errors import SpinCycleError, Status, UnauthenticatedError
from spincycle_server.rpc.context import CallContext
from spincycle_server.telemetry.spans import REQUEST_ID, Kind, OpenSpan, Spans, error_type

ReadRequest: TypeAlias = Callable[[], Awaitable[Any]]
UnaryCall: TypeAlias = Callable[[ReadRequest, CallContext], Awaitable[Message]]
StreamCall: TypeAlias = Callable[[ReadRequest, CallContext], AsyncIterator[Message]]

_SERVER_FAULTS = frozenset(
    {Status.UNKNOWN, Status.DEADLINE_EXCEEDED, Status.UNIMPLEMENTED, Status.INTERNAL, Status.UNAVAILABLE}
)
"""The errors of a server span, by the semantic conventions. All others are those of its caller."""


class TracedCalls:
    """Records the spans of the calls of one method.

    Args:
        spans: Records spans.
        method: The method.
        is_of_servers: Whether other servers call it. They call often, so only calls of a trace have spans.
    """

    def __init__(self, spans: Spans, method: MethodDescriptor, *, is_of_servers: bool) -> None:
        self._spans = spans
        self._name = f"{method.containing_service.full_name}/{method.name}"
        self._is_of_servers = is_of_servers

    def unary(self, call: UnaryCall) -> UnaryCall:
        """Returns a call that is recorded."""

        async def traced(read: ReadRequest, context: CallContext) -> Message:
            span = self._begin(context)
            if span is None:
                return await call(read, context)
            try:
                answer = await call(_noting(read, span), context.within(span))
            except BaseException as error:
                _end(span, context, error)
                raise
            _end(span, context, None)
            return answer

        return traced

    def stream(self, call: StreamCall) -> StreamCall:
        """Returns a call with a stream of responses that is recorded when the stream ends."""

        async def recorded(read: ReadRequest, context: CallContext, span: OpenSpan) -> AsyncIterator[Message]:
            try:
                answers: Any = call(_noting(read, span), context.within(span))
                async with contextlib.aclosing(answers):
                    async for answer in answers:
                        yield answer
            except BaseException as error:
                _end(span, context, error)
                raise
            _end(span, context, None)

        def traced(read: ReadRequest, context: CallContext) -> AsyncIterator[Message]:
            span = self._begin(context)
            return call(read, context) if span is None else recorded(read, context, span)

        return traced

    def _begin(self, context: CallContext) -> OpenSpan | None:
        parent = context.trace
        if parent is None and self._is_of_servers:
            return None
        http_method, route = context.received.route
        span = self._spans.begin(f"{http_method} {route}" if route else self._name, parent, Kind.SERVER)
        if span is None:
            return None
        if route:
            span.attributes.update({"http.request.method": http_method, "http.route": route})
        else:
            span.attributes["rpc.system.name"] = "grpc"
        span.attributes["rpc.method"] = self._name
        return span


def _noting(read: ReadRequest, span: OpenSpan) -> ReadRequest:
    """Returns a function that reads the request of a call, and notes which request the call is about."""

    async def read_and_note() -> Any:
        message = await read()
        request_id = getattr(message, "request_id", "")
        if request_id:
            span.attributes[REQUEST_ID] = request_id
        return message

    return read_and_note


def _end(span: OpenSpan, context: CallContext, error: BaseException | None) -> None:
    """Records the span of a call, unless its caller is unknown: strangers must not fill the collector."""
    if isinstance(error, UnauthenticatedError):
        return
    status, http_status = _statuses_of(error, is_http=context.transport == "http")
    span.attributes["rpc.response.status_code"] = "OK" if status is None else status.name
    if http_status:
        span.attributes["http.response.status_code"] = http_status
    span.end(error_type(error), has_failed=status in _SERVER_FAULTS)


def _statuses_of(error: BaseException | None, *, is_http: bool) -> tuple[Status | None, int]:
    """Returns the status of a call, and that of HTTP; None and 0 if there are none."""
    if error is None:
        return None, 0
    if isinstance(error, SpinCycleError):
        status = error.status
    elif isinstance(error, asyncio.CancelledError):  # The gateway cancels only calls that take too long.
        status = Status.DEADLINE_EXCEEDED if is_http else Status.CANCELLED
    elif isinstance(error, GeneratorExit):  # The client of a stream is gone.
        return Status.CANCELLED, 0
    else:  # The gateway cannot read the request.
        return Status.INVALID_ARGUMENT, getattr(error, "status", 0)
    return status, status.http_status if is_http else 0
