"""Spans reach a collector as OTLP, with its headers, and a collector that takes none is named."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from spincycle_grpc.trace_context import TraceContext
from spincycle_server.telemetry.spans import Kind, Span
from spincycle_server.telemetry.spans_export import OtlpSender
from tests.telemetry.collector import Collector, Received, collecting

TRACE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, "rojo=1,congo=2")
SPAN = Span("call", TRACE, "2" * 16, Kind.SERVER, 5, 9, {"text": "a", "number": 7, "truth": True}, True)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def sender(url: str, **headers: str) -> OtlpSender:
    return OtlpSender(f"{url}/v1/traces", headers, "", {"service.name": "tests"})


def test_a_span_arrives_whole(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    root = SPAN._replace(parent_id="", kind=Kind.INTERNAL, has_failed=False, trace=TRACE._replace(state=""))
    assert sender(collector.url, authorization="Bearer s3cret").send([SPAN, root]) == ""
    attributes = {"text": "a", "number": 7, "truth": True}
    whole = Received(
        "tests", "call", TRACE.trace_id, TRACE.span_id, "2" * 16, TRACE.state, 2, 5, 9, attributes, True
    )
    assert collector.spans == [whole, whole._replace(parent_id="", kind=1, has_failed=False, state="")]
    (headers,) = collector.headers
    assert (headers["authorization"], headers["connection"]) == ("Bearer s3cret", "close")


@pytest.mark.parametrize(
    ("status", "shown"), [(400, "400"), (401, "401"), (302, "redirects are not followed")]
)
def test_a_collector_that_refuses_spans_is_named(collector: Collector, status: int, shown: str) -> None:
    collector.status = status
    reason = sender(collector.url, authorization="Bearer s3cret").send([SPAN])
    assert shown in reason
    assert "s3cret" not in reason
    assert not collector.spans


def test_a_collector_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = sender(f"http://127.0.0.1:{unused.getsockname()[1]}")
        away.stop()  # So it does not try again.
        assert away.send([SPAN])
