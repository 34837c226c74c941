"""The queue of spans: nobody waits for the collector, and what is lost is counted."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from spincycle_grpc.trace_context import TraceContext
from spincycle_server.telemetry.spans import Kind, Span
from spincycle_server.telemetry.spans_queue import MAX_BATCH, SpanQueue
from tests.e2e.waiting import eventually
from tests.limits import STEP

TRACE = TraceContext("1" * 32, "2" * 16, 1)


def a_span(number: int = 0) -> Span:
    return Span("call", TRACE, "", Kind.SERVER, number, number, {}, False)


def test_spans_are_sent_in_order_and_in_batches() -> None:
    batches: list[Sequence[Span]] = []

    def send(spans: Sequence[Span]) -> str:
        batches.append(spans)
        return ""

    queue = SpanQueue(send, interval=0.01)
    spans = [a_span(number) for number in range(3 * MAX_BATCH)]
    for span in spans:
        queue.add(span)
    queue.close(STEP)
    assert [span for batch in batches for span in batch] == spans
    assert max(map(len, batches)) <= MAX_BATCH


def test_a_slow_collector_delays_nobody_and_spans_beyond_the_limit_are_counted() -> None:
    may_answer, is_asked = threading.Event(), threading.Event()

    def send(spans: Sequence[Span]) -> str:
        is_asked.set()
        may_answer.wait(STEP)
        return ""

    with capture_logs() as lines:
        queue = SpanQueue(send, limit=10, interval=0.01)
        queue.add(a_span())
        assert is_asked.wait(STEP)
        for number in range(15):
            queue.add(a_span(number))
        may_answer.set()
        queue.close(STEP)
    assert [(line["event"], line["spans"], line["reason"]) for line in lines] == [
        ("spans dropped", 5, "10 spans waited to be sent")
    ]


def test_lost_spans_are_reported_together_and_at_most_once_in_a_while() -> None:
    sent = threading.Semaphore(0)

    def send(spans: Sequence[Span]) -> str:
        sent.release()
        return "refused"

    with capture_logs() as lines:
        queue = SpanQueue(send, interval=0.001)
        for number in range(5):
            queue.add(a_span(number))
            assert sent.acquire(timeout=STEP)
        eventually(lambda: lines)
        assert len(lines) == 1  # at once
        queue.close(STEP)
    assert sum(line["spans"] for line in lines) == 5
    assert {line["reason"] for line in lines} == {"refused"}
    assert len(lines) <= 2  # and at the end


def test_an_exception_loses_its_batch_and_not_the_thread() -> None:
    outcomes = [ValueError("no"), ""]
    batches: list[Sequence[Span]] = []

    def send(spans: Sequence[Span]) -> str:
        batches.append(spans)
        outcome = outcomes[len(batches) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    with capture_logs() as lines:
        queue = SpanQueue(send, interval=0.001)
        queue.add(a_span())
        eventually(lambda: batches)
        queue.add(a_span())
        queue.close(STEP)
    assert [(line["spans"], line["reason"]) for line in lines] == [(1, "ValueError")]


@pytest.mark.parametrize("waiting", [0, 1, 3])
def test_a_server_that_stops_does_not_wait_long_for_the_collector(waiting: int) -> None:
    never, is_asked = threading.Event(), threading.Event()

    def send(spans: Sequence[Span]) -> str:
        is_asked.set()
        never.wait(STEP)
        return ""

    with capture_logs() as lines:
        queue = SpanQueue(send, interval=0.001)
        queue.add(a_span())
        assert is_asked.wait(STEP)
        for number in range(waiting):
            queue.add(a_span(number))
        queue.close(0.01)
        never.set()
        queue.close(STEP)
    assert [line["spans"] for line in lines] == [waiting + 1]  # and the one that was being sent
