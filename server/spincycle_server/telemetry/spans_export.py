"""The way of spans to an OpenTelemetry collector: OTLP over HTTP, with the exporter of OpenTelemetry's SDK.

It needs the extra `otel`. Nothing else imports OpenTelemetry.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from spincycle_grpc.version import package_version
from spincycle_server.telemetry.spans import Kind, Span

TIMEOUT = 10.0
"""Seconds that sending one message may take, with its repetitions."""

_KINDS = {Kind.INTERNAL: SpanKind.INTERNAL, Kind.SERVER: SpanKind.SERVER}
_OK, _ERROR = Status(), Status(StatusCode.ERROR)
_FIRST_REDIRECT, _LAST_REDIRECT = 300, 399


class OtlpSender:
    """Sends spans to a collector.

    Args:
        endpoint: The URL to which spans are posted.
        headers: Headers of each message, which may contain secrets.
        ca_file: The CAs that may have signed the collector's certificate; "" for those of `requests`.
        resource: What the spans have in common: the service, its version and its instance.
    """

    def __init__(
        self, endpoint: str, headers: Mapping[str, str], ca_file: str, resource: Mapping[str, str]
    ) -> None:
        self._resource = Resource(dict(resource))
        self._scope = InstrumentationScope("spincycle", package_version())
        self._said = _LastSaid()
        self._exporter = OTLPSpanExporter(
            endpoint=endpoint,
            certificate_file=ca_file or None,
            headers=headers,
            timeout=TIMEOUT,
            compression=Compression.Gzip,
            session=_session(),
        )

    def send(self, spans: Sequence[Span]) -> str:
        """Sends spans. Returns why they were lost; "" if they were not."""
        self._said.text = ""
        if self._exporter.export([self._readable(span) for span in spans]) is SpanExportResult.SUCCESS:
            return ""
        return self._said.text or "the collector did not take them"

    def stop(self) -> None:
        """Ends a `send` that waits to try again."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _readable(self, span: Span) -> ReadableSpan:
        trace = span.trace
        state = TraceState.from_header([trace.state]) if trace.state else TraceState()
        parent = _context(trace.trace_id, span.parent_id, trace.flags, state) if span.parent_id else None
        return ReadableSpan(
            name=span.name,
            context=_context(trace.trace_id, trace.span_id, trace.flags, state),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=_KINDS[span.kind],
            status=_ERROR if span.has_failed else _OK,
            start_time=span.started_at,
            end_time=span.ended_at,
            instrumentation_scope=self._scope,
        )


def _context(trace_id: str, span_id: str, flags: int, state: TraceState) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), False, TraceFlags(flags), state)


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # Neither a proxy nor ~/.netrc: what reaches the collector is configured.
    # A process that a job forks would inherit an open connection.
    session.headers["Connection"] = "close"
    session.hooks["response"].append(_refuse_redirect)
    return session


def _refuse_redirect(response: requests.Response, **_: Any) -> None:
    """Raises an error for a redirect, because the exporter would count it as success."""
    if _FIRST_REDIRECT <= response.status_code <= _LAST_REDIRECT:
        response.close()
        raise requests.exceptions.InvalidURL(
            f"status {response.status_code}: redirects are not followed, so set the URL of the collector"
        )


class _LastSaid(logging.Handler):
    """Keeps the last message of the exporter instead of logging it, because drops are reported together."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""
        library = logging.getLogger("opentelemetry")
        library.propagate = False
        library.handlers = [self]

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()[:500]
