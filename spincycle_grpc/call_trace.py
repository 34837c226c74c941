"""The trace that a client sends with its calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spincycle_grpc.trace_context import TraceContext, current_trace

Trace = str | TraceContext | Callable[[], str | TraceContext | None]
"""A traceparent, a context with its tracestate, or a function that returns one of them for one call."""


class CallTrace:
    """Adds traceparent and tracestate to the metadata of each call.

    Args:
        trace: The trace, or a function that is asked before each call. None: the current OpenTelemetry span,
            if the program has one.
    """

    def __init__(self, trace: Trace | None) -> None:
        self._trace = trace

    def add_to(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the arguments of a call with the trace. A malformed traceparent is left out."""
        trace = self._context()
        if trace is None:
            return options
        return {**options, "metadata": (*options.get("metadata", ()), *trace.headers())}

    def _context(self) -> TraceContext | None:
        trace = self._trace() if callable(self._trace) else self._trace
        if trace is None:
            return current_trace() if self._trace is None else None
        return trace if isinstance(trace, TraceContext) else TraceContext.parse(trace)
