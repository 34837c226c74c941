"""Answers to HTTP requests: status, headers and body."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TypeAlias

from google.protobuf.message import Message

from spincycle_grpc.errors import SpinCycleError, Status
from spincycle_grpc.v1.json_pb2 import HTTP_BODY_FORM_EMPTY, HTTP_BODY_FORM_NULL, HTTP_BODY_FORM_TEXT
from spincycle_grpc.wire import encode
from spincycle_server.gateway.errors import (
    ErrorFormat,
    Header,
    HttpError,
    error_body,
    formatted_error_body,
    http_reason_header,
    reason_header,
)
from spincycle_server.gateway.routes import Route

Answer: TypeAlias = tuple[int, list[Header], bytes]
"""Status, headers and body. The headers lack Content-Length and those of uvicorn."""

CLOSE: Header = (b"connection", b"close")

JSON: Header = (b"content-type", b"application/json; charset=UTF-8")
TEXT: Header = (b"content-type", b"text/plain; charset=UTF-8")
NO_STORE: Header = (b"cache-control", b"no-store")  # Answers depend on the caller.
_RETRY_AFTER: Header = (b"retry-after", b"1")
CHALLENGE: Header = (b"www-authenticate", b'Bearer realm="spincycle"')
_CHALLENGE_OF_DENIED: Header = (b"www-authenticate", b'Bearer realm="spincycle", error="insufficient_scope"')


def response_answer(route: Route, response: Message) -> Answer:
    """Returns the answer of a successful call."""
    headers: list[Header] = [NO_STORE]
    if route.location is not None:
        headers.append((b"location", route.location(response).encode()))
    for header, name in route.response_headers:
        if text := str(getattr(response, name)):
            headers.append((header.lower().encode(), text.encode()))
    if route.form == HTTP_BODY_FORM_EMPTY:
        return route.status, headers, b""
    if route.form == HTTP_BODY_FORM_TEXT:
        return route.status, [TEXT, *headers], str(getattr(response, route.response_body)).encode()
    if route.form == HTTP_BODY_FORM_NULL:
        return route.status, [JSON, *headers], b"null\n"
    return route.status, [JSON, *headers], encode(response, route.response_body) + b"\n"


def text_answer(text: bytes, media_type: str = "") -> Answer:
    """Returns the answer with a text, such as a page about the server. Caches do not keep it."""
    content_type = (b"content-type", media_type.encode()) if media_type else TEXT
    return HTTPStatus.OK, [content_type, NO_STORE], text


def nothing_answer() -> Answer:
    """Returns the answer of a stream that has ended without a message."""
    return HTTPStatus.NO_CONTENT, [NO_STORE], b""


def error_answer(
    error: SpinCycleError,
    error_format: ErrorFormat,
    denied_status: int = Status.PERMISSION_DENIED.http_status,
) -> Answer:
    """Returns the answer of a failed call.

    Args:
        error: The error.
        error_format: The format of most errors.
        denied_status: The HTTP status of PERMISSION_DENIED.
    """
    is_denied = error.status is Status.PERMISSION_DENIED
    status = denied_status if is_denied else error.status.http_status
    headers = [JSON, NO_STORE, *reason_header(error)]
    if error.status in (Status.RESOURCE_EXHAUSTED, Status.UNAVAILABLE):
        headers.append(_RETRY_AFTER)
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append(_CHALLENGE_OF_DENIED if is_denied else CHALLENGE)
    return status, headers, formatted_error_body(error, error_format, status)


def http_error_answer(error: HttpError, request_headers: Iterable[Header]) -> Answer:
    """Returns the answer of an error of the gateway itself.

    If the client waits for "100 Continue" before it sends its body, the connection ends: it is unknown
    whether the body still comes.
    """
    headers = [JSON, http_reason_header(error.status), *error.headers]
    if CLOSE not in headers and any(name == b"expect" for name, _ in request_headers):
        headers.append(CLOSE)
    return error.status, headers, error_body(error.message)


def options_answer(http_methods: Iterable[str]) -> Answer:
    """Returns the answer to OPTIONS for a path that has these HTTP methods."""
    return 204, [_allow(http_methods)], b""


def not_allowed(http_methods: Iterable[str]) -> HttpError:
    """Returns the error for an HTTP method that a path does not have. The path has `http_methods`."""
    return HttpError(405, "Method Not Allowed", [_allow(http_methods)])


def _allow(http_methods: Iterable[str]) -> Header:
    methods = {*http_methods, "OPTIONS"}
    methods |= {"HEAD"} if "GET" in methods else set()
    return b"allow", ", ".join(sorted(methods)).encode()
