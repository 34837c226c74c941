"""The HTTP app: an ASGI application that calls methods of the table in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import structlog
from google.protobuf.message import Message

from server.gateway.routes import Route, Router, routes_of
from server.rpc import CallContext, MethodTable
from spincycle_grpc.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    SpinCycleError,
    Status,
)
from spincycle_grpc.v1.error_pb2 import Error
from spincycle_grpc.v1.json_pb2 import (
    HTTP_BODY_FORM_EMPTY,
    HTTP_BODY_FORM_NULL,
    HTTP_BODY_FORM_TEXT,
)
from spincycle_grpc.version import API_VERSION
from spincycle_grpc.wire import decode_into, encode

logger = structlog.get_logger(__name__)

Scope: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]
Header: TypeAlias = tuple[bytes, bytes]

_JSON: Header = (b"content-type", b"application/json; charset=UTF-8")
_TEXT: Header = (b"content-type", b"text/plain; charset=UTF-8")
_VERSION: Header = (b"x-spincycle-version", API_VERSION.encode())
_RETRY_AFTER: Header = (b"retry-after", b"1")
_PLAIN_REASONS = frozenset({"BAD_JSON", "WRONG_TYPE"})
"""Reasons of errors that the original's framework told, by their message alone."""


class HttpError(Exception):
    """An answer that is no method's: no such route, body too large, and so on."""

    def __init__(self, status: int, message: str, headers: Sequence[Header] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


class GatewayApp:
    """Answers HTTP requests by the methods of some tables.

    Args:
        tables: The methods.
        full_errors: Whether errors have request id and status, as the Request Manager's, or the
            message alone, as the Job Runner's.
        max_body: Bytes of a request's body.
        body_timeout: Seconds that a body may take to arrive.
        call_timeout: Seconds that a method may take.
    """

    def __init__(
        self,
        tables: Iterable[MethodTable],
        *,
        full_errors: bool,
        max_body: int,
        body_timeout: float = 30.0,
        call_timeout: float = 60.0,
    ) -> None:
        self._router = Router(route for table in tables for route in routes_of(table))
        self._full_errors = full_errors
        self._max_body = max_body
        self._body_timeout = body_timeout
        self._call_timeout = call_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, as ASGI has it."""
        if scope["type"] != "http":
            raise ValueError(f"the gateway does not speak {scope['type']}")
        try:
            status, headers, body = await self._answer(scope, receive)
        except HttpError as error:
            status, headers = error.status, [_JSON, *error.headers]
            body = _plain_error(error.message)
        except SpinCycleError as error:
            status, headers, body = self._error(error)
        except Exception:
            logger.exception("answering failed", method=scope["method"], path=scope["path"])
            status, headers, body = self._error(
                InternalError("an error in the server itself, which its log shows", reason="INTERNAL")
            )
        headers += [_VERSION, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, list[Header], bytes]:
        path = scope.get("raw_path") or scope["path"].encode()
        routes, values = self._router.find(path.partition(b"?")[0].decode("latin-1"))
        if not routes:
            raise HttpError(404, "Not Found")
        route = _chosen(routes, scope["method"])
        if route is None:
            return 204, [_allow(routes)], b""
        request = route.method.request_type()
        await self._fill(request, route, scope, receive)
        route.query.read(scope["query_string"], request)
        for name, value in zip(route.variables, values, strict=True):
            setattr(request, name, value)
        for header, name in route.headers:
            text = _header(scope, header)
            if text is not None:
                setattr(request, name, text.decode("latin-1"))
        context = CallContext(
            transport="http",
            metadata={name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]},
            peer=_peer(scope),
        )
        return _success(route, await self._call(route, request, context))

    async def _call(self, route: Route, request: Message, context: CallContext) -> Message:
        """Calls the method; it goes on when the client hangs up, since it may have changed something."""
        try:
            async with asyncio.timeout(self._call_timeout):
                answer: Message = await route.method.call(request, context)
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"no answer within {self._call_timeout:g} s: look whether it took effect, then try again",
                reason="DEADLINE_EXCEEDED",
                request_id=getattr(request, "request_id", ""),
            ) from error
        return answer

    async def _fill(self, request: Message, route: Route, scope: Scope, receive: Receive) -> None:
        """Reads the body into the request, if the route has one."""
        if not route.body:
            return
        content_type = _header(scope, b"content-type") or b""
        if content_type.partition(b";")[0].strip().lower() != b"application/json":
            raise HttpError(415, "Unsupported Media Type")
        length = _header(scope, b"content-length") or b""
        if length.isdigit() and int(length) > self._max_body:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._body_timeout):
                data = await self._read_body(receive)
        except TimeoutError as error:
            raise HttpError(408, "Request Timeout", [(b"connection", b"close")]) from error
        if data:
            decode_into(request, data, "" if route.body == "*" else route.body)

    async def _read_body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise HttpError(400, "Bad Request")
            part: bytes = event.get("body", b"")
            size += len(part)
            if size > self._max_body:
                raise self._too_large()
            parts.append(part)
            if not event.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self) -> HttpError:
        return HttpError(
            413, f"Request Entity Too Large: at most {self._max_body} bytes", [(b"connection", b"close")]
        )

    def _error(self, error: SpinCycleError) -> tuple[int, list[Header], bytes]:
        status = error.status.http_status
        headers = [_JSON]
        if error.status in (Status.RESOURCE_EXHAUSTED, Status.UNAVAILABLE):
            headers.append(_RETRY_AFTER)
        is_framework = isinstance(error, InvalidArgumentError) and error.reason in _PLAIN_REASONS
        if not self._full_errors or is_framework or status == 401:
            return status, headers, _plain_error(error.message)
        body = Error(message=error.message, request_id=error.request_id, http_status=status)
        return status, headers, encode(body) + b"\n"


def _chosen(routes: Mapping[str, Route], http_method: str) -> Route | None:
    """Returns the route for a method; None for OPTIONS.

    Raises:
        HttpError: The path has no such method.
    """
    if http_method == "OPTIONS":
        return None
    route = routes.get("GET" if http_method == "HEAD" else http_method)
    if route is None:
        raise HttpError(405, "Method Not Allowed", [_allow(routes)])
    return route


def _allow(routes: Mapping[str, Route]) -> Header:
    methods = {*routes, "OPTIONS"} | ({"HEAD"} if "GET" in routes else set())
    return b"allow", ", ".join(sorted(methods)).encode()


def _success(route: Route, response: Message) -> tuple[int, list[Header], bytes]:
    headers: list[Header] = []
    if route.location is not None:
        headers.append((b"location", route.location(response).encode()))
    if route.form == HTTP_BODY_FORM_EMPTY:
        return route.status, headers, b""
    if route.form == HTTP_BODY_FORM_TEXT:
        return route.status, [_TEXT, *headers], str(getattr(response, route.response_body)).encode()
    if route.form == HTTP_BODY_FORM_NULL:
        return route.status, [_JSON, *headers], b"null\n"
    return route.status, [_JSON, *headers], encode(response, route.response_body) + b"\n"


def _plain_error(message: str) -> bytes:
    """The body of an error that is its message alone, written as all JSON here is."""
    full = encode(Error(message=message), "message")
    return b'{"message":' + full + b"}\n"


def _header(scope: Scope, name: bytes) -> bytes | None:
    """Returns the first header of a name, which may be empty; None where there is none."""
    value: bytes
    for key, value in scope["headers"]:
        if key == name:
            return value
    return None


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""
