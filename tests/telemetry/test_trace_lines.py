"""The fields of log lines about requests that belong to a trace."""

from __future__ import annotations

from spincycle_grpc.trace_context import TraceContext
from spincycle_server.telemetry.trace_lines import TraceLines

TRACE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)


def test_lines_about_a_request_have_its_trace() -> None:
    lines = TraceLines()
    assert not lines
    lines.add("one", TRACE)
    assert lines
    assert lines.fields("one") == {"trace_id": TRACE.trace_id, "span_id": TRACE.span_id}
    for other in ("two", None, ["one"]):
        assert lines.fields(other) is None


def test_the_request_that_was_used_longest_ago_is_forgotten_first() -> None:
    lines = TraceLines(limit=2)
    for request_id in ("one", "two", "one", "three"):
        lines.add(request_id, TRACE)
    assert lines.fields("two") is None
    assert lines.fields("one") is not None
    assert lines.fields("three") is not None
