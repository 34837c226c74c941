"""The fields trace_id and span_id of log lines about requests that belong to a trace."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from spincycle_server.telemetry.spans import request_span_id

if TYPE_CHECKING:
    from spincycle_grpc.trace_context import TraceContext

MAX_REQUESTS = 10_000
"""The maximum number of requests whose trace a process remembers. The oldest is forgotten first."""


class TraceLines:
    """The traces of the requests that this process has lately worked on. Safe for use by several threads.

    Args:
        limit: The maximum number of requests.

    Attributes:
        records_spans: Whether this process records spans, so that requests have spans of their own.
    """

    def __init__(self, limit: int = MAX_REQUESTS) -> None:
        self.records_spans = False
        self._limit = limit
        self._lock = threading.Lock()
        self._fields: dict[str, Mapping[str, str]] = {}

    def add(self, request_id: str, trace: TraceContext) -> None:
        """Notes the trace of a request."""
        has_span = self.records_spans and trace.is_sampled
        span_id = request_span_id(request_id) if has_span else trace.span_id
        fields = {"trace_id": trace.trace_id, "span_id": span_id}
        with self._lock:
            self._fields.pop(request_id, None)
            self._fields[request_id] = fields
            if len(self._fields) > self._limit:
                del self._fields[next(iter(self._fields))]

    def fields(self, request_id: object) -> Mapping[str, str] | None:
        """Returns the fields of lines about a request; None if it is in no trace, or was forgotten."""
        return self._fields.get(request_id) if isinstance(request_id, str) else None

    def __bool__(self) -> bool:
        return bool(self._fields)


trace_lines = TraceLines()
"""The traces of this process, which has one log."""
