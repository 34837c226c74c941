"""The spans of calls, which are the same over gRPC and HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from spincycle_grpc.errors import InternalError, NotFoundError, UnauthenticatedError
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1.request_manager_pb2 import GetRequest, WatchRequest, WatchResponse
from spincycle_server.gateway.errors import HttpError
from spincycle_server.identity import METHOD_ACCESS, Authentication, Credentials, MethodAccess
from spincycle_server.rpc import CallContext, Gate, MethodTable, ReceivedRequest
from spincycle_server.telemetry.spans import Kind, Span, Spans
from tests.rpc.test_methods import RESERVED_GET, SERVICE, ByToken, Servicer, raising, reading

TRACE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, "rojo=1")
REQUEST = GetRequest(request_id="abc")
GET = "spincycle.v1.RequestManager/Get"
OVER_GRPC = CallContext(credentials=Credentials(dict(TRACE.headers())))
OVER_HTTP = OVER_GRPC._replace(transport="http", received=ReceivedRequest(("GET", "/requests/{request_id}")))
GRPC = {"rpc.system.name": "grpc", "rpc.method": GET, "spincycle.request.id": "abc"}
HTTP = {
    "http.request.method": "GET",
    "http.route": "/requests/{request_id}",
    "rpc.method": GET,
    "spincycle.request.id": "abc",
}


async def answer_trace(request: object, context: CallContext) -> TraceContext | None:
    return context.trace


def table_of(
    recorded: list[Span],
    behavior: Callable[..., Any],
    *,
    ratio: float = 1,
    access: Mapping[str, MethodAccess] = METHOD_ACCESS,
) -> MethodTable:
    return MethodTable(
        SERVICE, Servicer(behavior), Gate(10), access=access, spans=Spans(recorded.append, ratio)
    )


@pytest.mark.parametrize(
    ("context", "name", "attributes"),
    [(OVER_GRPC, GET, GRPC), (OVER_HTTP, "GET /requests/{request_id}", HTTP)],
)
async def test_a_call_has_a_span_and_works_within_it(
    context: CallContext, name: str, attributes: Mapping[str, str]
) -> None:
    recorded: list[Span] = []
    trace = await table_of(recorded, answer_trace).methods["Get"].call(reading(REQUEST), context)
    (span,) = recorded
    assert (span.name, span.kind, span.parent_id) == (name, Kind.SERVER, TRACE.span_id)
    assert span.trace == trace == TRACE.within(span.trace.span_id)
    assert span.attributes == {**attributes, "rpc.response.status_code": "OK"}
    assert not span.has_failed


@pytest.mark.parametrize(
    ("error", "status", "http_status", "kind", "has_failed"),
    [
        (NotFoundError("secret", reason="REQUEST_NOT_FOUND"), "NOT_FOUND", 404, "REQUEST_NOT_FOUND", False),
        (InternalError("secret"), "INTERNAL", 500, "INTERNAL", True),
        (ValueError("secret"), "INTERNAL", 500, "INTERNAL", True),
        (asyncio.CancelledError(), "CANCELLED", 504, "CancelledError", False),
    ],
)
async def test_the_span_of_a_failed_call_shows_the_class_of_the_error_alone(
    error: BaseException, status: str, http_status: int, kind: str, has_failed: bool
) -> None:
    for context in (OVER_GRPC, OVER_HTTP):
        recorded: list[Span] = []
        with pytest.raises(BaseException):  # noqa: B017, PT011 (each case has another class)
            await table_of(recorded, raising(error)).methods["Get"].call(reading(REQUEST), context)
        (span,) = recorded
        is_http = context is OVER_HTTP
        timed_out = is_http and isinstance(error, asyncio.CancelledError)
        shown = {"rpc.response.status_code": "DEADLINE_EXCEEDED" if timed_out else status, "error.type": kind}
        if is_http:
            shown["http.response.status_code"] = http_status  # type: ignore[assignment]
        assert span.attributes == {**(HTTP if is_http else GRPC), **shown}
        assert span.has_failed == (has_failed or timed_out)
        assert "secret" not in repr(span)


async def test_a_body_that_the_gateway_refuses_fails_the_span() -> None:
    recorded: list[Span] = []
    table = table_of(recorded, answer_trace)
    with pytest.raises(HttpError):
        await table.methods["Get"].call(reading(HttpError(413, "secret")), OVER_HTTP)
    (span,) = recorded
    assert span.attributes["http.response.status_code"] == 413
    assert span.attributes["error.type"] == "HttpError"


@pytest.mark.parametrize(
    ("headers", "ratio", "is_recorded"),
    [
        ({}, 1, True),
        ({}, 0, False),
        ({"traceparent": "malformed"}, 1, True),
        (dict(TRACE._replace(flags=0).headers()), 1, False),
        (dict(TRACE.headers()), 0, True),
    ],
)
async def test_the_caller_or_the_ratio_decides_whether_a_call_is_recorded(
    headers: Mapping[str, str], ratio: float, is_recorded: bool
) -> None:
    recorded: list[Span] = []
    context = CallContext(credentials=Credentials(headers))
    await table_of(recorded, answer_trace, ratio=ratio).methods["Get"].call(reading(REQUEST), context)
    assert len(recorded) == is_recorded


async def test_calls_of_strangers_are_not_recorded() -> None:
    recorded: list[Span] = []
    authentication = Authentication([ByToken()])
    table = MethodTable(
        SERVICE, Servicer(answer_trace), Gate(10), authentication, spans=Spans(recorded.append)
    )
    with pytest.raises(UnauthenticatedError):
        await table.methods["Get"].call(reading(REQUEST), OVER_GRPC)
    assert not recorded
    known = Credentials({**dict(TRACE.headers()), "token": "secret"})
    await table.methods["Get"].call(reading(REQUEST), CallContext(credentials=known))
    assert len(recorded) == 1


async def test_calls_of_servers_are_recorded_only_within_a_trace() -> None:
    recorded: list[Span] = []
    method = table_of(recorded, answer_trace, access=RESERVED_GET).methods["Get"]
    await method.call(reading(REQUEST), CallContext())
    assert not recorded
    await method.call(reading(REQUEST), OVER_GRPC)
    assert len(recorded) == 1


async def test_without_spans_a_call_belongs_to_the_trace_of_its_caller() -> None:
    method = MethodTable(SERVICE, Servicer(answer_trace), Gate(10)).methods["Get"]
    assert await method.call(reading(REQUEST), OVER_GRPC) == TRACE
    assert await method.call(reading(REQUEST), CallContext()) is None


async def answer_twice(request: object, context: CallContext) -> AsyncIterator[WatchResponse]:
    for number in range(2):
        yield WatchResponse(cursor=f"{number} {context.trace}")


@pytest.mark.parametrize(("read", "status"), [(3, "OK"), (1, "CANCELLED")])
async def test_a_stream_is_recorded_when_it_ends(read: int, status: str) -> None:
    recorded: list[Span] = []
    method = table_of(recorded, answer_twice).methods["Watch"]
    answers = method.call(reading(WatchRequest(request_id="abc")), OVER_GRPC)
    async with contextlib.aclosing(answers):
        texts: list[str] = []
        async for answer in answers:
            assert not recorded
            texts.append(answer.cursor)
            if len(texts) == read:
                break
    (span,) = recorded
    assert span.name == "spincycle.v1.RequestManager/Watch"
    assert span.attributes["rpc.response.status_code"] == status
    assert texts[0] == f"0 {span.trace}"
    assert not span.has_failed
