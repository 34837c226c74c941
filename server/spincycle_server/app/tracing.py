"""Starts to record spans, if the options name a collector."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

import structlog

from spincycle_grpc.errors import FailedPreconditionError
from spincycle_grpc.version import package_version
from spincycle_server.config import Config, ConfigError, headers_of, mask_secrets
from spincycle_server.request_ids import RequestIdGenerator
from spincycle_server.telemetry.spans import Spans
from spincycle_server.telemetry.spans_queue import SpanQueue
from spincycle_server.telemetry.trace_lines import trace_lines

if TYPE_CHECKING:
    from spincycle_server.telemetry.spans_export import OtlpSender

logger = structlog.get_logger(__name__)

_PATH = "/v1/traces"


@contextlib.asynccontextmanager
async def recorded_spans(config: Config, service: str) -> AsyncIterator[Spans | None]:
    """Yields what records spans and sends them to the collector; None without `telemetry.otlp`.

    Args:
        config: The options.
        service: The name of the service in traces.

    Raises:
        ConfigError: An option of telemetry is invalid.
        FailedPreconditionError: The extra `otel` is not installed. Reason: OTEL_NOT_INSTALLED.
    """
    if not config.telemetry_otlp:
        if config.telemetry_otlp_headers_file or config.telemetry_otlp_ca_file:
            raise ConfigError(
                "option telemetry.otlp: is missing, but other options of telemetry.otlp are set"
            )
        yield None
        return
    sender = await asyncio.to_thread(_sender, config, service)
    queue = SpanQueue(sender.send)
    trace_lines.records_spans = True
    logger.info("recording spans", collector=mask_secrets(config.telemetry_otlp))
    try:
        yield Spans(queue.add, config.telemetry_sample_ratio)
    finally:
        await asyncio.to_thread(queue.close)
        sender.stop()


def _sender(config: Config, service: str) -> OtlpSender:
    try:
        from spincycle_server.telemetry.spans_export import OtlpSender
    except ImportError as error:
        raise FailedPreconditionError(
            "option telemetry.otlp: needs the extra otel, run `pip install 'spincycle-grpc[server,otel]'`",
            reason="OTEL_NOT_INSTALLED",
        ) from error
    endpoint, credentials = _endpoint_of(config.telemetry_otlp)
    headers = credentials | headers_of("telemetry.otlp_headers_file", config.telemetry_otlp_headers_file)
    resource = {
        "service.name": service,
        "service.version": package_version(),
        "service.instance.id": RequestIdGenerator().next(),
    }
    ca_file = config.telemetry_otlp_ca_file
    try:
        if ca_file:  # Otherwise the first message would find a mistake, which only loses spans.
            ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(
            f"option telemetry.otlp_ca_file: {ca_file} has no certificates that can be read"
        ) from error
    return OtlpSender(endpoint, headers, ca_file, resource)


def _endpoint_of(url: str) -> tuple[str, dict[str, str]]:
    """Returns the URL for spans, and the headers for the user and password that the given URL may have.

    The password is not left in the URL, which errors show.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    path = path if path.endswith(_PATH) else path + _PATH
    host = parts.netloc.rpartition("@")[2]
    headers = {}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return urlunsplit((parts.scheme, host, path, "", "")), headers
