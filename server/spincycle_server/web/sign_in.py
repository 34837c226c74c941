"""The paths below /web: who is signed in, signing in, and signing out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl

import orjson

from spincycle_grpc.errors import InvalidArgumentError, SpinCycleError, UnauthenticatedError
from spincycle_grpc.loopback import is_loopback_host
from spincycle_server.gateway.answers import JSON, NO_STORE, TEXT, Answer
from spincycle_server.gateway.errors import HttpError, reason_header
from spincycle_server.identity import ANONYMOUS, Authentication, Credentials, Identity, MethodAccess
from spincycle_server.identity.credentials import AUTHORIZATION
from spincycle_server.rpc import CallContext
from spincycle_server.web.browser_calls import BrowserCalls
from spincycle_server.web.security_headers import PAGE_HEADERS
from spincycle_server.web.sessions import SESSION_COOKIE, Session, Sessions

if TYPE_CHECKING:
    from spincycle_server.web.oidc_sign_in import OidcSignIn  # loads libraries that few servers need

PREFIX = "/web/"
"""The paths of this module."""

CALLBACK = "/web/sign-in/oidc/callback"
"""Where an OIDC provider sends a browser back to."""

_SIGN_IN = "Web.SignIn"
_SIGN_OUT = "Web.SignOut"
_SEALABLE = ("token", "oidc")
_MAX_PARAMETERS = 20


class Audit(Protocol):
    """What signing in needs of the audit log."""

    async def record(self, context: CallContext, operation: str) -> None:
        """Records that a user has done something."""

    def add_denial(self, method: str, context: CallContext, error: SpinCycleError, request: object) -> None:
        """Records that a user was denied something."""


@dataclass(frozen=True)
class BrowserCall:
    """A call of a browser to one of these paths.

    Attributes:
        method: The HTTP method.
        path: The path.
        query: The query string.
        headers: The headers, by names in lower case.
        scheme: "http" or "https".
        is_secure: Whether the browser uses TLS, perhaps to a proxy.
        credentials: The credentials, with the token of the session if there is one.
        session: The session; None without one.
    """

    method: str
    path: str
    query: bytes
    headers: Mapping[bytes, bytes]
    scheme: str
    is_secure: bool
    credentials: Credentials
    session: Session | None

    @property
    def cookies(self) -> str:
        """The Cookie header."""
        return self.headers.get(b"cookie", b"").decode("latin-1")


class SignIn:
    """Answers the paths below /web.

    Args:
        authentication: Identifies callers.
        method_names: The methods of authentication, as `auth.methods` names them.
        admin_roles: The roles of administrators.
        sessions: Seals sessions; None if no method has tokens.
        oidc: Signs in at the OIDC provider; None without one.
        browser_calls: Refuses calls of other pages.
        audit: Records who signs in and out.
    """

    def __init__(
        self,
        authentication: Authentication,
        method_names: Sequence[str],
        admin_roles: Sequence[str],
        *,
        sessions: Sessions | None,
        oidc: OidcSignIn | None,
        browser_calls: BrowserCalls,
        audit: Audit,
    ) -> None:
        self._authentication = authentication
        self._method_names = tuple(method_names)
        self._admin_roles = frozenset(admin_roles)
        self._sessions = sessions
        self._oidc = oidc
        self._browser_calls = browser_calls
        self._audit = audit
        self._paths: Mapping[str, tuple[str, Callable[[BrowserCall], Awaitable[Answer]]]] = {
            "/web/session": ("GET", self._show_session),
            "/web/sign-in": ("POST", self._sign_in),
            "/web/sign-in/oidc": ("GET", self._start_oidc),
            CALLBACK: ("GET", self._finish_oidc),
            "/web/sign-out": ("POST", self._sign_out),
        }

    async def answer(self, call: BrowserCall) -> Answer:
        """Answers a call.

        Raises:
            HttpError: There is no such path or method, or another page began the call.
            SpinCycleError: The call failed.
        """
        http_method, act = self._paths.get(call.path, ("", self._show_session))
        if not http_method:
            raise HttpError(404, "Not Found")
        if call.method != http_method:
            raise HttpError(405, "Method Not Allowed", [(b"allow", http_method.encode())])
        if call.path == CALLBACK:  # A page of the provider begins it.
            self._browser_calls.check_host(call.headers)
        else:
            self._browser_calls.check_of_page(call.method, call.headers, call.scheme)
        status, headers, body = await act(call)
        return status, [*headers, NO_STORE, *PAGE_HEADERS], body

    async def _show_session(self, call: BrowserCall) -> Answer:
        identity = await self._identity(call)
        caller = identity.caller
        is_on = self._authentication.is_on
        shown: dict[str, Any] = {
            "authentication": is_on,
            "signedIn": bool(identity.method),
            "user": caller.name,
            "roles": sorted(caller.roles),
            "authMethod": identity.method,
            "isAdmin": not is_on or not self._admin_roles.isdisjoint(caller.roles),
            "expiresAt": None if call.session is None else int(call.session.expires_at),
            "signIn": self._possible_methods(call),
            "needsTls": self._is_unsafe(call),
        }
        return 200, [JSON], orjson.dumps(shown) + b"\n"

    async def _identity(self, call: BrowserCall) -> Identity:
        """Returns who calls; ANONYMOUS if the caller is unknown."""
        try:
            return await self._authentication.identify(MethodAccess.REQUEST, call.credentials)
        except UnauthenticatedError:
            return ANONYMOUS

    def _possible_methods(self, call: BrowserCall) -> list[str]:
        """Returns how a user can sign in here."""
        if self._sessions is None or self._is_unsafe(call):
            return []
        return [name for name in self._method_names if name == "token" or (name == "oidc" and self._oidc)]

    def _is_unsafe(self, call: BrowserCall) -> bool:
        """Whether others could read the token and the session on their way."""
        host = call.headers.get(b"host", b"").decode("latin-1")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        return not call.is_secure and not is_loopback_host(name.strip("[]"))

    def _check_is_safe(self, call: BrowserCall) -> Sessions:
        if self._is_unsafe(call):
            raise InvalidArgumentError(
                "a token would be sent in plain text: use https; behind a proxy with TLS, set "
                "server.public_url",
                reason="TOKEN_IN_PLAIN_TEXT",
            )
        if self._sessions is None:
            raise InvalidArgumentError(
                "this server has no sign-in: it does not authenticate users by tokens or OIDC",
                reason="NO_SIGN_IN",
            )
        return self._sessions

    async def _sign_in(self, call: BrowserCall) -> Answer:
        """Begins the session of the token in the header `Authorization`."""
        sessions = self._check_is_safe(call)
        token = call.credentials.bearer_token
        identity = await self._identified(call.credentials)
        if not token or identity.method not in _SEALABLE:
            raise InvalidArgumentError(
                "send the token as `Authorization: Bearer TOKEN`; other credentials need no sign-in",
                reason="NO_SIGN_IN",
            )
        _, headers = await sessions.begin(token, is_secure=call.is_secure)
        await self._audit.record(_context(identity, call.credentials), _SIGN_IN)
        return 204, headers, b""

    async def _identified(self, credentials: Credentials) -> Identity:
        try:
            return await self._authentication.identify(MethodAccess.REQUEST, credentials)
        except UnauthenticatedError as error:
            self._audit.add_denial(_SIGN_IN, _context(ANONYMOUS, credentials), error, None)
            raise

    async def _start_oidc(self, call: BrowserCall) -> Answer:
        self._check_is_safe(call)
        started = await self._oidc_sign_in.start(
            self._redirect_uri(call), _parameters(call.query).get("return", "/"), is_secure=call.is_secure
        )
        return 303, [(b"location", started.location.encode()), *started.headers], b""

    async def _finish_oidc(self, call: BrowserCall) -> Answer:
        sessions = self._check_is_safe(call)
        oidc = self._oidc_sign_in
        forget = oidc.forget(is_secure=call.is_secure)
        try:
            done = await oidc.finish(call.cookies, _parameters(call.query), is_secure=call.is_secure)
            credentials = call.credentials._replace(metadata={AUTHORIZATION: f"Bearer {done.token}"})
            identity = await self._identified(credentials)
            _, headers = await sessions.begin(
                done.token, expires_at=done.expires_at, is_secure=call.is_secure
            )
        except SpinCycleError as error:
            if error.reason == "SIGN_IN_REFUSED":
                self._audit.add_denial(_SIGN_IN, _context(ANONYMOUS, call.credentials), error, None)
            text = f"Signing in failed: {error.message}. Go back to / to try again.\n"
            return error.status.http_status, [TEXT, *reason_header(error), *forget], text.encode()
        await self._audit.record(_context(identity, credentials), _SIGN_IN)
        return 303, [(b"location", done.return_to.encode()), *headers, *forget], b""

    @property
    def _oidc_sign_in(self) -> OidcSignIn:
        if self._oidc is None:
            raise HttpError(404, "Not Found")
        return self._oidc

    def _redirect_uri(self, call: BrowserCall) -> str:
        origin = self._browser_calls.public_origin
        return f"{origin or f'{call.scheme}://' + call.headers.get(b'host', b'').decode('latin-1')}{CALLBACK}"

    async def _sign_out(self, call: BrowserCall) -> Answer:
        """Lets the browser forget its session. The token itself stays valid."""
        if call.session is not None:
            identity = await self._identity(call)
            await self._audit.record(_context(identity, call.credentials), _SIGN_OUT)
        return 204, SESSION_COOKIE.write("", 0, is_secure=call.is_secure), b""


def _context(identity: Identity, credentials: Credentials) -> CallContext:
    return CallContext(identity, "http", credentials)


def _parameters(query: bytes) -> dict[str, str]:
    """Returns the parameters of a query. Of several with the same name, the first counts."""
    try:
        pairs = parse_qsl(query.decode("latin-1"), max_num_fields=_MAX_PARAMETERS)
    except ValueError as error:
        raise HttpError(400, "Bad Request: the query has too many parameters") from error
    return dict(reversed(pairs))
