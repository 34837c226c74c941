"""Who calls a method, and how. gRPC and HTTP calls have the same context."""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import Message

from spincycle_grpc.auth import Caller
from spincycle_grpc.trace_context import TRACEPARENT, TRACESTATE, TraceContext
from spincycle_server.identity import ANONYMOUS, Credentials, Identity
from spincycle_server.large_work import LARGE
from spincycle_server.telemetry.spans import OpenSpan

_NO_CREDENTIALS = Credentials()


class ReceivedRequest:
    """What is known about the request of a call besides its message.

    Args:
        route: The HTTP method and the path, with variables in braces; two empty texts over gRPC.

    Attributes:
        route: See there.
        size: Its bytes as it was received, after decompression; 0 if it was not read, or came without a body.
    """

    __slots__ = ("route", "size")

    def __init__(self, route: tuple[str, str] = ("", "")) -> None:
        self.route = route
        self.size = 0

    def size_of(self, message: Message) -> int:
        """Returns about how many bytes the message of the request has.

        A message finds out its own size by encoding itself, and no other thread runs meanwhile. So the size
        of a large message is that of the received bytes.
        """
        return self.size if self.size > LARGE else message.ByteSize()


_NOTHING_RECEIVED = ReceivedRequest()


class CallContext(NamedTuple):  # Each call makes one, and a frozen dataclass takes four times as long.
    """The context of one call.

    Attributes:
        identity: Who calls. ANONYMOUS until the method table has identified the caller.
        transport: "grpc" or "http", for the log.
        credentials: What the caller presents: headers, address and certificate.
        is_throttled: Whether the call waits its turn if many calls arrive together. The gRPC library already
            queues its calls, so only HTTP calls are throttled.
        received: What the transport knows about the request, once it is read.
        span: The span of the call; None if it is not recorded.
    """

    identity: Identity = ANONYMOUS
    transport: str = "grpc"
    credentials: Credentials = _NO_CREDENTIALS
    is_throttled: bool = False
    received: ReceivedRequest = _NOTHING_RECEIVED
    span: OpenSpan | None = None

    @property
    def caller(self) -> Caller:
        """The caller's name and roles."""
        return self.identity.caller

    @property
    def peer(self) -> str:
        """The caller's address."""
        return self.credentials.peer

    @property
    def trace(self) -> TraceContext | None:
        """The trace that the call belongs to; None if it belongs to none.

        Without a span, that is the trace of its caller. Two headers traceparent are as good as none.
        """
        if self.span is not None:
            return self.span.trace
        metadata, repeated = self.credentials.metadata, self.credentials.repeated
        if TRACEPARENT not in metadata or TRACEPARENT in repeated:
            return None
        # HTTP joins headers of one name, and gRPC does not.
        drops_state = TRACESTATE in repeated and self.transport == "grpc"
        return TraceContext.parse(metadata[TRACEPARENT], "" if drops_state else metadata.get(TRACESTATE, ""))

    def of(self, identity: Identity) -> CallContext:
        """Returns the context of an identified caller.

        Not with `_replace` or the class, which take three times and twice as long.
        """
        return _new(CallContext, (identity, self[1], self[2], self[3], self[4], self[5]))

    def within(self, span: OpenSpan) -> CallContext:
        """Returns the context of a call that is recorded."""
        return self._replace(span=span)


_new = tuple.__new__
