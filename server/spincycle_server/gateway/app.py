"""The HTTP app: an ASGI application that calls methods of the table in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import orjson
import structlog
from google.protobuf.message import Message

from spincycle_grpc.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    SpinCycleError,
    Status,
)
from spincycle_grpc.v1.error_pb2 import Error
from spincycle_grpc.v1.json_pb2 import (
    HTTP_BODY_FORM_EMPTY,
    HTTP_BODY_FORM_NULL,
    HTTP_BODY_FORM_TEXT,
)
from spincycle_grpc.wire import decode_into, encode
from spincycle_server.gateway import openapi
from spincycle_server.gateway.bodies import Bodies, Share
from spincycle_server.gateway.content_coding import MIN_COMPRESSED, compressed, decoded, prefers_gzip
from spincycle_server.gateway.errors import Header, HttpError, error_body, header_lines
from spincycle_server.gateway.refusals import EarlyRefusals, users_calls
from spincycle_server.gateway.routes import Route, Router, routes_of
from spincycle_server.rpc import CallContext, Gate, MethodTable

logger = structlog.get_logger(__name__)

Scope: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]

_JSON: Header = (b"content-type", b"application/json; charset=UTF-8")
_TEXT: Header = (b"content-type", b"text/plain; charset=UTF-8")
_CLOSE: Header = (b"connection", b"close")
_GZIP: Header = (b"content-encoding", b"gzip")
_VARY: Header = (b"vary", b"Accept-Encoding")
_RETRY_AFTER: Header = (b"retry-after", b"1")
_PLAIN_REASONS = frozenset({"BAD_JSON", "BAD_PATH", "WRONG_TYPE"})
"""Reasons of errors that the original's framework told, by their message alone."""


class GatewayApp:
    """Answers HTTP requests by the methods of some tables.

    Args:
        tables: The methods.
        title: The server's name, for its OpenAPI document.
        full_errors: Whether errors have request id and status, as the Request Manager's, or the
            message alone, as the Job Runner's.
        max_body: Bytes of a request's body.
        max_bodies: Bytes of all bodies that are being read; room for one of them, as gzip and without, is
            always made.
        on_refused: Is told of a call that is refused since there was no room for its body.
        body_timeout: Seconds that a body may take to arrive.
        call_timeout: Seconds that a method may take.
    """

    def __init__(
        self,
        tables: Iterable[MethodTable],
        *,
        title: str,
        full_errors: bool,
        max_body: int,
        max_bodies: int,
        on_refused: Callable[[ResourceExhaustedError], None],
        body_timeout: float = 30.0,
        call_timeout: float = 60.0,
    ) -> None:
        self._routes = [route for table in tables for route in routes_of(table)]
        self._router = Router(self._routes)
        self._title = title
        self._full_errors = full_errors
        self._document = b""
        self._max_body = max_body
        self._bodies = Bodies(max(max_bodies, 2 * max_body))
        self._on_refused = on_refused
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
            body = error_body(error.message)
            if _CLOSE not in headers and any(name == b"expect" for name, _ in scope["headers"]):
                headers.append(_CLOSE)  # Nobody knows whether the body will come.
        except SpinCycleError as error:
            status, headers, body = self._error(error)
        except Exception:
            logger.exception("answering failed", method=scope["method"], path=scope["path"])
            status, headers, body = self._error(
                InternalError("an error in the server itself, which its log shows", reason="INTERNAL")
            )
        if len(body) >= MIN_COMPRESSED:
            headers.append(_VARY)
            if prefers_gzip(_joined_header(scope["headers"], b"accept-encoding")):
                headers.append(_GZIP)
                body = await compressed(body)
        if status != 204:
            headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def early_refusals(self, gate: Gate) -> EarlyRefusals:
        """Returns what refuses calls of users before they are read, while the gate is full."""
        error = gate.full_error()
        _, headers, body = self._error(error)
        headers.append((b"content-length", str(len(body)).encode()))
        calls = users_calls(
            ((route.http_method, route.template, route.method.is_reserved) for route in self._routes),
            [openapi.PATH],
        )
        return EarlyRefusals(
            is_full=lambda: gate.is_full,
            calls=calls,
            answer=header_lines(headers) + b"\r\n" + body,
            count=lambda: gate.refusals.add(error),
        )

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, list[Header], bytes]:
        path = scope.get("raw_path") or scope["path"].encode()
        routes, values = self._router.find(path.partition(b"?")[0].decode("latin-1"))
        if not routes:
            return self._answer_itself(path, scope["method"])
        route = _chosen(routes, scope["method"])
        if route is None:
            return 204, [_allow(routes)], b""
        metadata = _metadata(scope["headers"])
        request = route.method.request_type()
        if route.body:
            await self._fill(request, route, metadata, receive)
        route.query.read(scope["query_string"], request)
        for name, value in zip(route.variables, values, strict=True):
            setattr(request, name, value)
        for header, name in route.headers:
            text = metadata.get(header)
            if text is not None:
                setattr(request, name, text)
        context = CallContext(
            transport="http",
            metadata=metadata,
            peer=_peer(scope),
            is_paced=True,
        )
        return _success(route, await self._call(route, request, context))

    def _answer_itself(self, path: bytes, http_method: str) -> tuple[int, list[Header], bytes]:
        """Answers what is no route's."""
        if path == b"*" and http_method == "OPTIONS":
            return 204, [_allow(route.http_method for route in self._routes)], b""
        if path.rstrip(b"/") != openapi.PATH.encode():
            raise HttpError(404, "Not Found")
        if http_method == "OPTIONS":
            return 204, [_allow(["GET"])], b""
        if http_method not in ("GET", "HEAD"):
            raise HttpError(405, "Method Not Allowed", [_allow(["GET"])])
        if not self._document:
            document = openapi.document(self._routes, self._title, full_errors=self._full_errors)
            self._document = orjson.dumps(document) + b"\n"
        return 200, [_JSON], self._document

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

    async def _fill(
        self, request: Message, route: Route, metadata: Mapping[str, str], receive: Receive
    ) -> None:
        """Reads the body into the request."""
        content_type = metadata.get("content-type", "")
        if content_type.partition(";")[0].strip().lower() != "application/json":
            raise HttpError(415, "Unsupported Media Type")
        length = metadata.get("content-length", "")
        if length.isdigit() and int(length) > self._max_body:
            raise self._too_large()
        try:
            with self._bodies.share() as share:
                data = await self._whole_body(metadata, receive, share)
                if data:
                    decode_into(request, data, "" if route.body == "*" else route.body)
        except ResourceExhaustedError as error:
            self._on_refused(error)
            raise

    async def _whole_body(self, metadata: Mapping[str, str], receive: Receive, share: Share) -> bytes:
        """Returns the body without its content coding."""
        try:
            async with asyncio.timeout(self._body_timeout):
                data = await self._read_body(receive, share)
        except TimeoutError as error:
            raise HttpError(408, "Request Timeout", [_CLOSE]) from error
        if "content-encoding" in metadata:
            data = await decoded(data, metadata["content-encoding"], self._max_body, share)
        return data

    async def _read_body(self, receive: Receive, share: Share) -> bytes:
        """Returns the body as it was sent. Its last part is not counted: nothing else is done meanwhile."""
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
            share.hold(size)

    def _too_large(self) -> HttpError:
        return HttpError(413, f"Request Entity Too Large: at most {self._max_body} bytes", [_CLOSE])

    def _error(self, error: SpinCycleError) -> tuple[int, list[Header], bytes]:
        status = error.status.http_status
        headers = [_JSON]
        if error.status in (Status.RESOURCE_EXHAUSTED, Status.UNAVAILABLE):
            headers.append(_RETRY_AFTER)
        is_framework = isinstance(error, InvalidArgumentError) and error.reason in _PLAIN_REASONS
        if not self._full_errors or is_framework or status == 401:
            return status, headers, error_body(error.message)
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


def _allow(http_methods: Iterable[str]) -> Header:
    methods = {*http_methods, "OPTIONS"}
    methods |= {"HEAD"} if "GET" in methods else set()
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


def _metadata(headers: Sequence[Header]) -> dict[str, str]:
    """Returns headers as text; those with the same name are joined."""
    metadata = {name.decode("latin-1"): text.decode("latin-1") for name, text in headers}
    if len(metadata) != len(headers):
        for key, _ in headers:
            metadata[key.decode("latin-1")] = _joined_header(headers, key)
    return metadata


def _joined_header(headers: Sequence[Header], name: bytes) -> str:
    """Returns a header's values, joined; "" if it was not sent."""
    return ", ".join(value.decode("latin-1") for key, value in headers if key == name)


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""
