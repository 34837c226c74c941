"""The pages about the server itself: whether it lives, whether it can take work, and its metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

from spincycle_grpc.errors import PermissionDeniedError, SpinCycleError, UnavailableError
from spincycle_server.gateway.answers import (
    Answer,
    error_answer,
    http_error_answer,
    not_allowed,
    options_answer,
    text_answer,
)
from spincycle_server.gateway.asgi import Scope, Send, credentials_of, path_of, send_answer
from spincycle_server.gateway.errors import ErrorFormat, HttpError
from spincycle_server.identity import ANONYMOUS, PATH_ACCESS, Authentication, CallerDeniedError, Credentials
from spincycle_server.rpc import CallContext, OnDenied, ignore_denial

HEALTHZ = "/healthz"
READYZ = "/readyz"
METRICS = "/metrics"


class _Exposition(Protocol):
    """Builds the text of the metrics."""

    async def text(self) -> bytes:
        """Returns the text."""


class ServerPages:
    """Answers requests for the pages of a server. They are answered even if all limits are reached.

    Args:
        problem: Returns why the server cannot take work; "" if it can. It must not block.
        exposition: Builds the text of /metrics; None if another port has it.
        media_type: The media type of this text.
        authentication: Identifies who asks for /metrics. None: everybody may see it.
        on_denied: Called with each denied request.
        on_refused: Called with the error of each denied request.

    Attributes:
        paths: The paths of the pages.
    """

    def __init__(
        self,
        problem: Callable[[], str],
        exposition: _Exposition | None,
        media_type: str,
        *,
        authentication: Authentication | None = None,
        on_denied: OnDenied = ignore_denial,
        on_refused: Callable[[SpinCycleError], None] = lambda _: None,
    ) -> None:
        self._problem = problem
        self._media_type = media_type
        self._authentication = authentication or Authentication()
        self._on_denied = on_denied
        self._on_refused = on_refused
        self._pages: Mapping[str, Callable[[Credentials], Awaitable[Answer]]] = {
            HEALTHZ: self._healthz,
            READYZ: self._readyz,
        } | ({} if exposition is None else {METRICS: partial(self._metrics, exposition)})
        self.paths = frozenset(self._pages)

    async def answer(self, path: str, scope: Scope) -> Answer:
        """Answers a request for one of the paths.

        Raises:
            HttpError: The pages do not have the HTTP method.
            SpinCycleError: The caller is unknown, or the server cannot take work.
        """
        if scope["method"] == "OPTIONS":
            return options_answer(["GET"])
        if scope["method"] not in ("GET", "HEAD"):
            raise not_allowed(["GET"])
        try:
            return await self._pages[path](credentials_of(scope))
        except PermissionDeniedError as error:  # Only routes of the original answer with 401.
            return error_answer(error, ErrorFormat.MESSAGE, HTTPStatus.FORBIDDEN)

    async def _healthz(self, _: Credentials) -> Answer:
        return text_answer(b"ok\n")  # The event loop has come here, so it lives.

    async def _readyz(self, _: Credentials) -> Answer:
        problem = self._problem()
        if problem:
            raise UnavailableError(problem, reason="NOT_READY")
        return text_answer(b"ready\n")

    async def _metrics(self, exposition: _Exposition, credentials: Credentials) -> Answer:
        try:
            await self._authentication.identify(PATH_ACCESS[METRICS], credentials)
        except SpinCycleError as error:
            identity = error.identity if isinstance(error, CallerDeniedError) else ANONYMOUS
            context = CallContext(identity, "http", credentials)
            self._on_refused(error)
            self._on_denied(METRICS, context, error, None)
            raise
        return text_answer(await exposition.text(), self._media_type)


class PagesApp:
    """An ASGI app that has nothing but the pages of a server."""

    def __init__(self, pages: ServerPages) -> None:
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        """Answers one request, as an ASGI application."""
        await send_answer(await self._answer(scope), scope, send)

    async def _answer(self, scope: Scope) -> Answer:
        path = path_of(scope).partition(b"?")[0].rstrip(b"/").decode("latin-1")
        try:
            if path not in self._pages.paths:
                raise HttpError(HTTPStatus.NOT_FOUND, "Not Found")
            return await self._pages.answer(path, scope)
        except HttpError as error:
            return http_error_answer(error, scope["headers"])
        except SpinCycleError as error:
            return error_answer(error, ErrorFormat.MESSAGE)
