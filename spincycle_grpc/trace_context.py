"""The trace that a call or a request belongs to: traceparent and tracestate of W3C Trace Context.

The rules are those of https://www.w3.org/TR/trace-context. A malformed traceparent is ignored, and with it
the tracestate. A malformed tracestate is ignored alone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
"""The headers, and the keys of gRPC metadata. The environment variables have the same names in upper case."""

MAX_STATE = 512
"""The longest tracestate that is kept, in characters. A longer one is ignored."""

_MAX_MEMBERS = 32
_SAMPLED = 1
_KNOWN_FLAGS = 3  # sampled, and that the trace id is random
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


class _Carrier(Protocol):
    """A message that has a trace, such as a JobChain."""

    traceparent: str
    tracestate: str


class TraceContext(NamedTuple):
    """The place of a call, a request or a job in a trace.

    Attributes:
        trace_id: The id of the trace, 32 hexadecimal digits.
        span_id: The id of the span that is the parent of what follows, 16 hexadecimal digits.
        flags: 1: the trace is sampled. 2: its id is random.
        state: The tracestate; "" for none.
    """

    trace_id: str
    span_id: str
    flags: int = 0
    state: str = ""

    @classmethod
    def parse(cls, traceparent: str, tracestate: str = "") -> TraceContext | None:
        """Returns the context of two headers; None if the traceparent is missing or malformed."""
        match = _TRACEPARENT.fullmatch(traceparent)
        if match is None:
            return None
        version, trace_id, span_id, flags, rest = match.groups()
        if version == "ff" or (version == "00" and rest) or not trace_id.strip("0") or not span_id.strip("0"):
            return None
        return cls(trace_id, span_id, int(flags, 16) & _KNOWN_FLAGS, _checked_state(tracestate))

    @classmethod
    def of_headers(cls, headers: Mapping[str, str]) -> TraceContext | None:
        """Returns the context of headers with names in lower case; None without a valid traceparent."""
        traceparent = headers.get(TRACEPARENT)
        return None if traceparent is None else cls.parse(traceparent, headers.get(TRACESTATE, ""))

    @classmethod
    def of(cls, carrier: _Carrier) -> TraceContext | None:
        """Returns the context of a message; None if it has none."""
        return cls.parse(carrier.traceparent, carrier.tracestate) if carrier.traceparent else None

    @property
    def is_sampled(self) -> bool:
        """Whether spans of the trace are recorded."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """The header traceparent, of version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Returns the context as headers or gRPC metadata."""
        own = ((TRACEPARENT, self.traceparent),)
        return (*own, (TRACESTATE, self.state)) if self.state else own

    def variables(self) -> dict[str, str]:
        """Returns the context as environment variables, as other tools read and set them."""
        return {name.upper(): value for name, value in self.headers()}

    def within(self, span_id: str) -> TraceContext:
        """Returns the context of what happens in another span of the same trace."""
        return TraceContext(self.trace_id, span_id, self.flags, self.state)

    def write_to(self, carrier: _Carrier) -> None:
        """Sets the context of a message."""
        carrier.traceparent, carrier.tracestate = self.traceparent, self.state


def current_trace() -> TraceContext | None:
    """Returns the trace of the current OpenTelemetry span; None without one.

    It imports nothing: a program that has a span has loaded OpenTelemetry itself.
    """
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    span = api.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    state = _checked_state(span.trace_state.to_header())
    return TraceContext(
        f"{span.trace_id:032x}", f"{span.span_id:016x}", span.trace_flags & _KNOWN_FLAGS, state
    )


def _checked_state(tracestate: str) -> str:
    """Returns a tracestate without spaces around its members; "" if it is malformed or too long."""
    if not tracestate:
        return ""
    members = [member for part in tracestate.split(",") if (member := part.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    joined = ",".join(members)
    if len(joined) > MAX_STATE or len(members) > _MAX_MEMBERS or len(keys) < len(members):
        return ""
    return joined if all(_MEMBER.fullmatch(member) for member in members) else ""
