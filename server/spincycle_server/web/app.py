"""The web room in front of the gateway: serves the page, and turns session cookies into tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from spincycle_grpc.errors import InternalError, SpinCycleError
from spincycle_server.gateway import ErrorFormat, GatewayApp
from spincycle_server.gateway.answers import CHALLENGE, Answer, error_answer, http_error_answer
from spincycle_server.gateway.asgi import Scope, Send, credentials_of, path_of, send_as_it_is
from spincycle_server.gateway.errors import HttpError
from spincycle_server.identity.credentials import AUTHORIZATION
from spincycle_server.web.browser_calls import BrowserCalls
from spincycle_server.web.page_files import PageFiles
from spincycle_server.web.security_headers import NO_SNIFF
from spincycle_server.web.sessions import Session, Sessions
from spincycle_server.web.sign_in import PREFIX, BrowserCall, SignIn

logger = structlog.get_logger(__name__)

_AUTHORIZATION = AUTHORIZATION.encode()
_API = b"/api/"
_SESSION_ENDED = HttpError(401, "Unauthorized: the session has ended, sign in again", [CHALLENGE])


class WebApp:
    """Serves the page, and passes all other calls on to the gateway.

    Args:
        gateway: Answers the calls of the API.
        page: The files of the page; None to serve no page and no sign-in.
        sign_in: Signs browsers in.
        sessions: Opens sessions; None if no method of authentication has tokens.
        browser_calls: Refuses calls of other pages.
    """

    def __init__(
        self,
        gateway: GatewayApp,
        page: PageFiles | None,
        sign_in: SignIn,
        sessions: Sessions | None,
        browser_calls: BrowserCalls,
    ) -> None:
        self._gateway = gateway
        self._page = page
        self._sign_in = sign_in
        self._sessions = sessions
        self._browser_calls = browser_calls

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Answers one request, as an ASGI application."""
        if scope["type"] != "http":
            raise ValueError(f"the page does not support the ASGI scope {scope['type']}")
        raw_path = path_of(scope)
        if self._page is not None and not raw_path.startswith(_API):
            path = raw_path.partition(b"?")[0].decode("latin-1")
            if path.startswith(PREFIX):
                await send_as_it_is(await self._answer(self._below_web, path, scope), scope, send)
                return
            if path.startswith("/") and self._page.has(path):
                await send_as_it_is(await self._answer(self._of_page, path, scope), scope, send)
                return
        try:
            session = await self._checked_session(scope)
        except (HttpError, SpinCycleError) as error:
            await send_as_it_is(_failed(error, scope), scope, send)
            return
        if session is None:
            await self._gateway(scope, receive, send)
        else:
            await self._call_in_session(session, scope, receive, send)

    async def _checked_session(self, scope: Scope) -> Session | None:
        """Returns the session of a call of the API, after checking who began the call.

        Raises:
            HttpError: Another page began it.
            UnavailableError: The database does not answer.
        """
        if not self._browser_calls.may_concern([name for name, _ in scope["headers"]]):
            return None
        headers = dict(scope["headers"])
        if _has_token(headers):
            return None
        session = await self._session(headers, scope) if b"cookie" in headers else None
        if session is None:
            self._browser_calls.check_other(scope["method"], headers)
        else:
            self._browser_calls.check_of_page(scope["method"], headers, scope["scheme"])
        return session

    async def _session(self, headers: Mapping[bytes, bytes], scope: Scope) -> Session | None:
        cookies = headers.get(b"cookie")
        if self._sessions is None or self._page is None or cookies is None:
            return None
        return await self._sessions.open(cookies.decode("latin-1"), is_secure=self._is_secure(scope))

    def _is_secure(self, scope: Scope) -> bool:
        return scope["scheme"] == "https" or self._browser_calls.public_origin.startswith("https:")

    async def _call_in_session(self, session: Session, scope: Scope, receive: Any, send: Send) -> None:
        """Calls the API with the token of a session. A stream ends with the session."""
        assert self._sessions is not None  # noqa: S101 (it has opened the session)
        has_begun = False

        async def send_to_page(message: Mapping[str, Any]) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message = {**message, "headers": [*message["headers"], NO_SNIFF]}
            await send(message)

        try:
            async with asyncio.timeout(self._sessions.seconds_left(session)):
                await self._gateway(_with_token(scope, session), receive, send_to_page)
        except TimeoutError:
            if has_begun:
                await send({"type": "http.response.body", "body": b""})
            else:
                await send_as_it_is(http_error_answer(_SESSION_ENDED, ()), scope, send)

    async def _of_page(self, path: str, scope: Scope) -> Answer:
        assert self._page is not None  # noqa: S101 (the caller has checked it)
        headers = dict(scope["headers"])
        self._browser_calls.check_host(headers)
        if scope["method"] not in ("GET", "HEAD"):
            raise HttpError(405, "Method Not Allowed", [(b"allow", b"GET, HEAD")])
        return self._page.answer(path, headers)

    async def _below_web(self, path: str, scope: Scope) -> Answer:
        headers = dict(scope["headers"])
        session = None if _has_token(headers) else await self._session(headers, scope)
        known = scope if session is None else _with_token(scope, session)
        call = BrowserCall(
            method=scope["method"],
            path=path,
            query=scope["query_string"],
            headers=headers,
            scheme=scope["scheme"],
            is_secure=self._is_secure(scope),
            credentials=credentials_of(known),
            session=session,
        )
        return await self._sign_in.answer(call)

    async def _answer(
        self, make: Callable[[str, Scope], Awaitable[Answer]], path: str, scope: Scope
    ) -> Answer:
        try:
            return await make(path, scope)
        except (HttpError, SpinCycleError) as error:
            return _failed(error, scope)
        except Exception:
            logger.exception("answering failed", method=scope["method"], path=path)
            return _failed(InternalError("internal error: see the server's log for details"), scope)


def _has_token(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a call has a token in its header `Authorization`.

    No other page can send one without permission by CORS. Other kinds of credentials in this header do not
    count, because a browser that knows a password sends it by itself.
    """
    return headers.get(_AUTHORIZATION, b"")[:7].lower() == b"bearer "


def _failed(error: HttpError | SpinCycleError, scope: Scope) -> Answer:
    if isinstance(error, HttpError):
        return http_error_answer(error, scope["headers"])
    return error_answer(error, ErrorFormat.FULL, 403)


def _with_token(scope: Scope, session: Session) -> Scope:
    """Returns the scope of a call with the token of its session, which replaces other credentials."""
    token = (_AUTHORIZATION, b"Bearer " + session.token.encode())
    others = (header for header in scope["headers"] if header[0] != _AUTHORIZATION)
    return {**scope, "headers": [*others, token]}
