"""Spans: what the servers record about calls and requests that belong to a sampled trace.

A span is recorded when it ends, in one piece, by whoever knows its end. The ids of spans that several
processes must agree on are derived from what they stand for. So no process keeps a span open for another one,
and a trace stays whole when a server dies.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from enum import Enum
from hashlib import blake2b
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

from spincycle_grpc.trace_context import TraceContext

AttributeValue: TypeAlias = str | int | bool
Attributes: TypeAlias = Mapping[str, AttributeValue]

ERROR_TYPE = "error.type"
"""The attribute with the class of an error, by the semantic conventions of OpenTelemetry."""

REQUEST_ID = "spincycle.request.id"
REQUEST_TYPE = "spincycle.request.type"

_LONGEST_REASON = 64  # A plugin may raise an error with any text as its reason.
_SAMPLED, _RANDOM = 1, 2
_RATIO_MASK = 2**64 - 1


class Kind(Enum):
    """The kind of a span."""

    INTERNAL = "internal"
    SERVER = "server"


class Span(NamedTuple):
    """A span that has ended.

    Attributes:
        name: The name, of which there are few.
        trace: The trace, with the id of the span itself.
        parent_id: The id of the parent; "" if the span is the root of the trace.
        kind: The kind.
        started_at: When it started, in nanoseconds since the Unix epoch.
        ended_at: When it ended, likewise.
        attributes: The attributes.
        has_failed: Whether it has the status ERROR.
    """

    name: str
    trace: TraceContext
    parent_id: str
    kind: Kind
    started_at: int
    ended_at: int
    attributes: Attributes
    has_failed: bool


class Spans:
    """Records spans, and decides which new traces are sampled.

    Args:
        record: Takes a span that has ended. Any thread may call it, and it returns at once.
        ratio: The share of new traces to sample, from 0 to 1. A caller decides about its own trace.
    """

    def __init__(self, record: Callable[[Span], None], ratio: float = 1.0) -> None:
        self.record = record
        # The rule of OpenTelemetry's TraceIdRatioBased, so that other programs decide alike.
        self._bound = round(ratio * (_RATIO_MASK + 1))

    def samples(self, trace_number: int) -> bool:
        """Whether a new trace is sampled, by its id as a number."""
        return trace_number & _RATIO_MASK < self._bound

    def begin(self, name: str, parent: TraceContext | None, kind: Kind = Kind.INTERNAL) -> OpenSpan | None:
        """Begins a span.

        Args:
            name: Its name.
            parent: Where it begins; None if it is the root of a new trace.
            kind: Its kind.

        Returns:
            The span; None if its trace is not sampled.
        """
        if parent is not None:
            return OpenSpan(self, name, parent, kind) if parent.is_sampled else None
        number = random.getrandbits(128) or 1
        if not self.samples(number):
            return None
        return OpenSpan(self, name, TraceContext(f"{number:032x}", "", _SAMPLED | _RANDOM), kind)


class OpenSpan:
    """A span that has begun in this process. As a context manager, it ends when the block does.

    Args:
        spans: Records it when it ends.
        name: Its name.
        parent: Its parent. Without a span id, the span is the root of the trace.
        kind: Its kind.

    Attributes:
        trace: The trace, with the id of this span: the parent of what happens within it.
        attributes: Its attributes, which may be changed until it ends.
    """

    __slots__ = ("_kind", "_name", "_parent_id", "_spans", "_started_at", "attributes", "trace")

    def __init__(self, spans: Spans, name: str, parent: TraceContext, kind: Kind) -> None:
        self._spans = spans
        self._name = name
        self._parent_id = parent.span_id
        self._kind = kind
        self._started_at = time.time_ns()
        self.trace = parent.within(new_span_id())
        self.attributes: dict[str, AttributeValue] = {}

    def part(self, name: str) -> OpenSpan:
        """Begins a span within this one, about the same request."""
        span = OpenSpan(self._spans, name, self.trace, Kind.INTERNAL)
        if REQUEST_ID in self.attributes:
            span.attributes[REQUEST_ID] = self.attributes[REQUEST_ID]
        return span

    def end(self, error: str = "", *, has_failed: bool | None = None) -> None:
        """Records the span.

        Args:
            error: The class of its error; "" without one.
            has_failed: Whether it has the status ERROR. None: if there is an error.
        """
        if error:
            self.attributes[ERROR_TYPE] = error
        self._spans.record(
            Span(
                self._name,
                self.trace,
                self._parent_id,
                self._kind,
                self._started_at,
                time.time_ns(),
                self.attributes,
                bool(error) if has_failed is None else has_failed,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error_type(error))


class _NoSpan:
    """Stands for a span that is not recorded."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


_NO_SPAN = _NoSpan()


def part_of(span: OpenSpan | None, name: str) -> OpenSpan | _NoSpan:
    """Begins a span within another one, for a `with` statement. Without the other one, it records nothing."""
    return _NO_SPAN if span is None else span.part(name)


def error_type(error: BaseException | None) -> str:
    """Returns the class of an error for the attribute error.type: its reason, or its Python class."""
    if error is None:
        return ""
    reason = getattr(error, "reason", "")
    is_word = isinstance(reason, str) and reason.isidentifier() and len(reason) <= _LONGEST_REASON
    return reason if is_word else type(error).__name__


def new_span_id() -> str:
    """Returns a random span id."""
    return f"{random.getrandbits(64) or 1:016x}"


def span_id_of(*parts: str | int) -> str:
    """Returns the id of the span of something that several processes know by the same names and numbers."""
    text = "\0".join(map(str, parts)).encode()
    return blake2b(text, digest_size=8, person=b"spincycle span").hexdigest()


def request_span_id(request_id: str) -> str:
    """Returns the id of the span of a request."""
    return span_id_of("request", request_id)
