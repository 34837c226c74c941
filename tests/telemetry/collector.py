"""An OpenTelemetry collector for tests: it receives OTLP over HTTP at a real socket, and keeps the spans."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.e2e.waiting import eventually


class Received(NamedTuple):
    """One span.

    Attributes:
        service: The service that has sent it.
        parent_id: The id of its parent; "" for none.
        started_at: In nanoseconds since the Unix epoch.
        ended_at: Likewise.
    """

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    kind: int
    started_at: int
    ended_at: int
    attributes: Mapping[str, Any]
    has_failed: bool


class Collector:
    """What was received.

    Attributes:
        spans: The spans, in the order in which they arrived.
        headers: The headers of each message, by names in lower case.
        status: The HTTP status of the next answers.
        gate: The collector answers once this is set.
    """

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.headers: list[Mapping[str, str]] = []
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        self.port = 0

    @property
    def url(self) -> str:
        """What the servers are configured with."""
        return f"http://127.0.0.1:{self.port}"

    def of_trace(self, trace_id: str) -> list[Received]:
        """Returns the spans of a trace so far."""
        return [span for span in list(self.spans) if span.trace_id == trace_id]

    def wait_for(self, trace_id: str, *names: str) -> list[Received]:
        """Waits until a trace has spans with these names, and returns its spans."""
        eventually(lambda: set(names) <= {span.name for span in self.of_trace(trace_id)})
        return self.of_trace(trace_id)

    def receive(self, headers: Mapping[str, str], body: bytes) -> None:
        """Keeps the spans of a message."""
        self.headers.append(headers)
        data = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
            service = _values(resource.resource.attributes)["service.name"]
            self.spans += [_received(service, span) for part in resource.scope_spans for span in part.spans]


def _values(attributes: Any) -> dict[str, Any]:
    def value(one: KeyValue) -> Any:
        return getattr(one.value, one.value.WhichOneof("value") or "")

    return {one.key: value(one) for one in attributes}


def _received(service: str, span: Span) -> Received:
    return Received(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.trace_state,
        span.kind,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _values(span.attributes),
        span.status.code == Status.STATUS_CODE_ERROR,
    )


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """Runs a collector."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.gate.wait()
            if collector.status == 200:
                assert self.path.endswith("/v1/traces")
                collector.receive({name.lower(): text for name, text in self.headers.items()}, body)
            with contextlib.suppress(OSError):
                self.send_response(collector.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            collector.gate.set()
            server.shutdown()
            thread.join()
