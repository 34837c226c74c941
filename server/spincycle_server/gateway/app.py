"""The gateway: an ASGI application that calls the methods of method tables in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import structlog
from google.protobuf.message import Message

from spincycle_grpc.errors import (
    DeadlineExceededError,
    InternalError,
    PermissionDeniedError,
    ResourceExhaustedError,
    SpinCycleError,
)
from spincycle_server.gateway.answers import (
    Answer,
    error_answer,
    http_error_answer,
    not_allowed,
    nothing_answer,
    options_answer,
    response_answer,
)
from spincycle_server.gateway.asgi import Scope, Send, credentials_of, path_of, send_answer
from spincycle_server.gateway.documents import Documents
from spincycle_server.gateway.errors import ErrorFormat, HttpError, header_lines
from spincycle_server.gateway.event_stream import EventStream
from spincycle_server.gateway.event_text import MEDIA_TYPE, accepts_events
from spincycle_server.gateway.refusals import EarlyRefusals, users_calls
from spincycle_server.gateway.request_bodies import Receive, RequestBodies
from spincycle_server.gateway.routes import Route, Router, routes_of
from spincycle_server.gateway.server_pages import ServerPages
from spincycle_server.gateway.time_limits import TimeLimit, TimeLimited
from spincycle_server.identity import ANONYMOUS
from spincycle_server.large_work import LARGE, run_large
from spincycle_server.rpc import CallContext, Gate, InputLimits, MethodTable, ReceivedRequest

logger = structlog.get_logger(__name__)


class GatewayApp:
    """Answers HTTP requests with the methods of some tables.

    Args:
        tables: The methods.
        title: The title of the OpenAPI document.
        error_format: The format of methods' errors.
        limits: The limits of bodies.
        on_refused: Called with the error if there is no room for a body.
        body_timeout: Seconds within which a body must arrive.
        call_timeout: Seconds within which a method must answer.
        pages: The pages of the server; None without any.
    """

    def __init__(
        self,
        tables: Iterable[MethodTable],
        *,
        title: str,
        error_format: ErrorFormat,
        limits: InputLimits,
        on_refused: Callable[[ResourceExhaustedError], None],
        body_timeout: float = 30.0,
        call_timeout: float = 60.0,
        pages: ServerPages | None = None,
    ) -> None:
        self._routes = [route for table in tables for route in routes_of(table)]
        self._router = Router(self._routes)
        self._error_format = error_format
        self._pages = pages
        self._documents = Documents(self._routes, title, error_format)
        self._bodies = RequestBodies(limits, timeout=body_timeout, on_refused=on_refused)
        self._time_limit = TimeLimit(call_timeout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, as an ASGI application."""
        if scope["type"] != "http":
            raise ValueError(f"the gateway does not support the ASGI scope {scope['type']}")
        answer = await self._answer_or_error(scope, receive)
        if isinstance(answer, EventStream):
            await (answer.send_head(send) if scope["method"] == "HEAD" else answer.send(send))
            return
        await send_answer(answer, scope, send)

    def early_refusals(self, gate: Gate, others: Iterable[str] = ()) -> EarlyRefusals:
        """Returns the refusals of users' calls before they are read, while the gate is full.

        Args:
            gate: Limits the concurrent calls.
            others: Paths that are always answered, besides those of documents.
        """
        error = gate.full_error()
        _, headers, body = error_answer(error, self._error_format)
        headers.append((b"content-length", str(len(body)).encode()))
        calls = users_calls(
            ((route.http_method, route.template, route.method.is_reserved) for route in self._routes),
            {*self._documents.paths, *(() if self._pages is None else self._pages.paths), *others},
        )
        return EarlyRefusals(
            is_full=lambda: gate.is_full,
            calls=calls,
            answer=header_lines(headers) + b"\r\n" + body,
            count=lambda: gate.refusals.add(error),
        )

    async def _answer_or_error(self, scope: Scope, receive: Receive) -> Answer | EventStream:
        try:
            return await self._answer(scope, receive)
        except HttpError as error:
            return http_error_answer(error, scope["headers"])
        except SpinCycleError as error:
            return error_answer(error, self._error_format)
        except Exception:
            logger.exception("answering failed", method=scope["method"], path=scope["path"])
            unexpected = InternalError("internal error: see the server's log for details")
            return error_answer(unexpected, self._error_format)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer | EventStream:
        path = path_of(scope)
        routes, values = self._router.find(path.partition(b"?")[0].decode("latin-1"))
        if not routes:
            return await self._answer_without_route(path, scope)
        if scope["method"] == "OPTIONS":
            return options_answer(routes)
        route = routes.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if route is None:
            raise not_allowed(routes)
        credentials = credentials_of(scope)
        received = ReceivedRequest((route.http_method, route.template))
        context = CallContext(ANONYMOUS, "http", credentials, True, received)
        read = partial(self._read, route, values, scope, context, receive)
        try:
            if route.method.is_server_stream:
                return await _begun_stream(route, read, context, scope, receive)
            response = await self._call(route, read, context)
        except PermissionDeniedError as error:
            return error_answer(error, self._error_format, route.denied_status)
        if received.size > LARGE or response.ByteSize() > LARGE:
            return await run_large(response_answer, route, response)
        return response_answer(route, response)

    async def _read(
        self,
        route: Route,
        values: Sequence[str],
        scope: Scope,
        context: CallContext,
        receive: Receive,
    ) -> Message:
        """Reads the request of a method from the body, the query, the path and the headers."""
        request = route.method.request_type()
        metadata = context.credentials.metadata
        if route.body:
            connection = scope.get("spincycle.connection")
            context.received.size = await self._bodies.read_into(
                request,
                route.body,
                metadata,
                receive,
                has_arrived=connection is not None and connection.has_received(receive),
                is_of_server=route.method.is_reserved,
            )
        route.query.read(scope["query_string"], request)
        for name, value in zip(route.variables, values, strict=True):
            setattr(request, name, value)
        for header, name in route.headers:
            text = metadata.get(header)
            if text is not None:
                setattr(request, name, text)
        return request

    async def _answer_without_route(self, path: bytes, scope: Scope) -> Answer:
        """Answers requests for the server as a whole, for its pages and for documents."""
        if path == b"*" and scope["method"] == "OPTIONS":
            return options_answer(route.http_method for route in self._routes)
        document = path.partition(b"?")[0].rstrip(b"/").decode("latin-1")
        if self._pages is not None and document in self._pages.paths:
            return await self._pages.answer(document, scope)
        if document not in self._documents.paths:
            raise HttpError(404, "Not Found")
        return self._documents.answer(document, scope["method"], scope["headers"])

    async def _call(
        self, route: Route, read: Callable[[], Awaitable[Message]], context: CallContext
    ) -> Message:
        """Calls the method. It continues if the client hangs up, because it may have changed something."""
        request: Message | None = None

        async def read_first() -> Message:
            """Reads the request, and starts the time of the method. Earlier steps have limits."""
            nonlocal request
            request = await read()
            limited.start()
            return request

        try:
            with TimeLimited(self._time_limit, starts=False) as limited:
                answer: Message = await route.method.call(read_first, context)
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"no answer within {self._time_limit.seconds:g} s: check whether the call took effect, "
                "then try again",
                reason="DEADLINE_EXCEEDED",
                request_id=getattr(request, "request_id", ""),
            ) from error
        return answer


async def _begun_stream(
    route: Route, read: Callable[[], Awaitable[Message]], context: CallContext, scope: Scope, receive: Receive
) -> Answer | EventStream:
    """Calls a method that streams. The answer is 204 if it ends without a message.

    A browser does not connect again after 204, so it stops once it has everything.
    """
    if not accepts_events(context.credentials.metadata.get("accept", "")):
        raise HttpError(406, f"Not Acceptable: this path answers with {MEDIA_TYPE}, so accept this type")
    stream = EventStream(
        route.method.call(read, context), route.denied_status, receive, scope["spincycle.connection"]
    )
    return stream if await stream.begin() else nothing_answer()
