"""Which traces are sampled, and how spans are linked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from spincycle_grpc.errors import NotFoundError
from spincycle_grpc.state import State
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_server.telemetry.spans import Kind, Span, Spans, error_type, part_of, request_span_id
from spincycle_server.telemetry.spans_of_requests import EndedRequest, RequestSpans, try_trace

PARENT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, "rojo=1")


@given(st.floats(0, 1), st.integers(0, 2**128 - 1))
def test_new_traces_are_sampled_as_other_programs_sample_them(ratio: float, number: int) -> None:
    theirs = TraceIdRatioBased(ratio).should_sample(None, number, "call").decision
    assert Spans(lambda _: None, ratio).samples(number) == (theirs is Decision.RECORD_AND_SAMPLE)


def test_no_new_trace_is_sampled_with_ratio_0_and_each_with_ratio_1() -> None:
    recorded: list[Span] = []
    assert Spans(recorded.append, 0).begin("call", None) is None
    span = Spans(recorded.append, 1).begin("call", None)
    assert span is not None
    span.end()
    (root,) = recorded
    assert (root.parent_id, root.trace.is_sampled) == ("", True)
    assert TraceContext.parse(root.trace.traceparent) == root.trace


def test_the_caller_decides_about_its_own_trace() -> None:
    recorded: list[Span] = []
    assert Spans(recorded.append, 1).begin("call", PARENT._replace(flags=0)) is None
    span = Spans(recorded.append, 0).begin("call", PARENT, Kind.SERVER)
    assert span is not None
    with part_of(span, "build"), pytest.raises(NotFoundError), part_of(span, "commit"):
        raise NotFoundError("none", reason="REQUEST_NOT_FOUND")
    span.end()
    commit, build, call = recorded
    assert (call.parent_id, call.trace.trace_id, call.trace.state) == (
        PARENT.span_id,
        PARENT.trace_id,
        "rojo=1",
    )
    assert commit.parent_id == build.parent_id == call.trace.span_id
    assert (commit.attributes, commit.has_failed) == ({"error.type": "REQUEST_NOT_FOUND"}, True)
    assert len({span.trace.span_id for span in recorded}) == 3
    assert call.started_at <= build.started_at <= commit.ended_at <= call.ended_at


def test_nothing_is_recorded_within_a_span_that_is_not() -> None:
    with part_of(None, "build") as nothing:
        assert nothing is None


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (None, ""),
        (ValueError("secret"), "ValueError"),
        (NotFoundError("secret", reason="NOT_THERE"), "NOT_THERE"),
        (NotFoundError("secret", reason="of a plugin: secret"), "NotFoundError"),
        (NotFoundError("secret", reason="A" * 65), "NotFoundError"),
    ],
)
def test_the_class_of_an_error_shows_nothing_of_its_text(error: Exception | None, shown: str) -> None:
    assert error_type(error) == shown


def ended(state: State, trace: TraceContext = PARENT) -> EndedRequest:
    return EndedRequest("r1", "nap", state.value, 2, 1_000_001, 3_000_002, trace)


def test_the_span_of_a_request_is_the_same_whoever_records_it() -> None:
    recorded: list[Span] = []
    for _ in range(2):
        RequestSpans(Spans(recorded.append)).ended(ended(State.FAIL))
    assert recorded[0] == recorded[1]
    assert recorded[0] == Span(
        "request nap",
        PARENT.within(request_span_id("r1")),
        PARENT.span_id,
        Kind.INTERNAL,
        1_000_001_000,
        3_000_002_000,
        {
            "spincycle.request.id": "r1",
            "spincycle.request.type": "nap",
            "spincycle.request.state": "FAIL",
            "spincycle.epoch": 2,
        },
        True,
    )


def test_a_try_has_a_span_of_its_own_in_each_assignment_without_its_error_and_output() -> None:
    recorded: list[Span] = []
    spans = RequestSpans(Spans(recorded.append))
    entry = JobLog(request_id="r1", job_id="aaaa", name="stop", type="shell-command", state=State.FAIL.value)
    entry.exit, entry.error, entry.stdout, entry.stderr = 7, "secret", "secret", "secret"
    entry.started_at, entry.finished_at = 5, 9
    setattr(entry, "try", 3)
    for epoch in (1, 2):
        spans.tried(entry, epoch, try_trace(PARENT, "r1", epoch, "aaaa", 3))
    first, second = recorded
    assert first.trace.span_id != second.trace.span_id
    assert first.parent_id == second.parent_id == request_span_id("r1")
    assert (first.name, first.started_at, first.ended_at) == ("job shell-command", 5, 9)
    assert (first.has_failed, first.attributes["spincycle.job.exit"]) == (True, 7)
    assert "secret" not in repr(recorded)


def test_a_request_of_a_trace_that_is_not_sampled_has_no_spans() -> None:
    recorded: list[Span] = []
    spans = RequestSpans(Spans(recorded.append))
    trace = PARENT._replace(flags=0)
    spans.ended(ended(State.COMPLETE, trace))
    spans.tried(JobLog(request_id="r1", job_id="aaaa"), 1, trace)
    spans.within("deliver", "r1", trace, 1, {})
    spans.within("deliver", "r1", None, 1, {})
    assert not recorded
