"""Sign-in at an OIDC provider: the authorization code flow with PKCE.

Between the two steps, the browser keeps what they share in a sealed cookie, so any Request Manager can do
the second step.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import structlog

from spincycle_grpc.errors import (
    InvalidArgumentError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from spincycle_server.call_threads import CallThreads
from spincycle_server.gateway.errors import Header
from spincycle_server.identity.credentials import AUTHORIZATION, Credentials
from spincycle_server.identity.oidc import OidcMethod
from spincycle_server.identity.oidc_documents import DocumentError, RefusedFormError, post_form
from spincycle_server.web.cookies import Cookie
from spincycle_server.web.sealing import Sealer

logger = structlog.get_logger(__name__)

LONGEST_SIGN_IN = 600.0
"""Seconds that a user has to sign in at the provider."""

MAX_EXCHANGES = 100
"""The maximum number of sign-ins that wait for the provider's answer to a code."""

THREADS = 4
"""Threads that wait for the provider."""

LONGEST_EXCHANGE = 15.0
"""Seconds that a sign-in waits for a thread and for the provider's answer."""

MAX_RETURN = 1000
"""The longest address within the page to return to, in characters."""

_COOKIE = Cookie("spincycle-sign-in", "Lax")  # The provider's redirect is a call of another site.
_PURPOSE = "sign-in"
_ERROR_CODE = re.compile("[a-z_]{1,60}")
_RETURN = re.compile(r"/(?![/\\])[!-~]*")


@dataclass(frozen=True, kw_only=True)
class OidcClient:
    """This server as a client of the provider.

    Attributes:
        client_id: Its id.
        client_secret: Returns its secret, "" for a public client. It is called in a thread.
        scopes: The scopes to ask for, besides "openid".
        ca_file: The CAs that may have signed the provider's certificate; "" for those of the system.
    """

    client_id: str
    client_secret: Callable[[], str]
    scopes: tuple[str, ...]
    ca_file: str


class Started(NamedTuple):
    """The first step: where the browser goes, and the headers that let it keep what the second step needs."""

    location: str
    headers: list[Header]


class SignedIn(NamedTuple):
    """The second step.

    Attributes:
        token: The ID token of the user.
        expires_at: When it expires, in seconds since the Unix epoch.
        return_to: The address within the page to return to.
    """

    token: str
    expires_at: float
    return_to: str


class _Kept(NamedTuple):
    """What the browser keeps between the two steps."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    return_to: str
    expires_at: float


class OidcSignIn:
    """Signs users in at the provider.

    Args:
        client: This server as a client of the provider.
        method: Checks the provider's tokens.
        sealer: Seals what the browser keeps.
        clock: Returns the time in seconds since the Unix epoch.
    """

    def __init__(
        self, client: OidcClient, method: OidcMethod, sealer: Sealer, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._method = method
        self._sealer = sealer
        self._clock = clock
        self._threads = CallThreads("oidc-sign-in", THREADS)
        self._exchanges = 0

    async def start(self, redirect_uri: str, return_to: str, *, is_secure: bool) -> Started:
        """Begins a sign-in.

        Args:
            redirect_uri: Where the provider sends the browser back to.
            return_to: The address within the page to return to. Another text counts as "/".
            is_secure: Whether the browser uses TLS.

        Raises:
            UnavailableError: The provider's addresses are unknown, because it does not answer.
        """
        fits = len(return_to) <= MAX_RETURN and _RETURN.fullmatch(return_to)
        kept = _Kept(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(32),
            redirect_uri=redirect_uri,
            return_to=return_to if fits else "/",
            expires_at=self._clock() + LONGEST_SIGN_IN,
        )
        challenge = base64.urlsafe_b64encode(hashlib.sha256(kept.verifier.encode()).digest())
        query = {
            "response_type": "code",
            "client_id": self._client.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(dict.fromkeys(("openid", *self._client.scopes))),
            "state": kept.state,
            "nonce": kept.nonce,
            "code_challenge": challenge.decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        endpoint = self._method.provider.authorization_endpoint
        mark = "&" if urlsplit(endpoint).query else "?"
        sealed = await self._sealer.seal(_PURPOSE, json.dumps(kept).encode())
        headers = _COOKIE.write(sealed, int(LONGEST_SIGN_IN), is_secure=is_secure)
        return Started(f"{endpoint}{mark}{urlencode(query)}", headers)

    def forget(self, *, is_secure: bool) -> list[Header]:
        """Returns the headers that let the browser forget what it keeps between the steps."""
        return _COOKIE.write("", 0, is_secure=is_secure)

    async def finish(self, cookie_header: str, answer: Mapping[str, str], *, is_secure: bool) -> SignedIn:
        """Ends a sign-in with what the provider sent the browser back with.

        Args:
            cookie_header: The browser's cookies.
            answer: The query: `code` and `state`, or `error`, and perhaps `iss`.
            is_secure: Whether the browser uses TLS.

        Raises:
            InvalidArgumentError: The browser did not begin this sign-in, or too long ago. Reason:
                SIGN_IN_EXPIRED.
            UnauthenticatedError: The provider refused the user or the code (SIGN_IN_REFUSED), or its token is
                not acceptable.
            UnavailableError: The provider does not answer. Reason: OIDC_UNAVAILABLE.
            ResourceExhaustedError: Too many sign-ins wait for the provider. Reason: TOO_MANY_SIGN_INS.
        """
        kept = await self._kept(cookie_header, answer.get("state", ""), is_secure=is_secure)
        issuer = self._method.issuer
        # RFC 9207: a provider that another one impersonates names itself.
        if answer.get("iss", issuer) != issuer:
            raise _refused("the answer comes from another provider")
        if "error" in answer or "code" not in answer:
            code = answer.get("error", "")
            raise _refused(f"it answered {code if _ERROR_CODE.fullmatch(code) else 'with an error'}")
        token = await self._token_for(answer["code"], kept)
        return SignedIn(token, await self._checked_expiry(token, kept.nonce), kept.return_to)

    async def _kept(self, cookie_header: str, state: str, *, is_secure: bool) -> _Kept:
        sealed = _COOKIE.read(cookie_header, is_secure=is_secure)
        data = await self._sealer.unseal(_PURPOSE, sealed) if sealed else None
        kept = None if data is None else _Kept(*json.loads(data))
        if (
            kept is None
            or self._clock() >= kept.expires_at
            or not hmac.compare_digest(kept.state.encode(), state.encode())
        ):
            raise InvalidArgumentError(
                "this browser did not begin the sign-in, or more than 10 minutes ago: sign in again",
                reason="SIGN_IN_EXPIRED",
            )
        return kept

    async def _token_for(self, code: str, kept: _Kept) -> str:
        """Exchanges a code for the user's ID token."""
        if self._exchanges >= MAX_EXCHANGES:
            raise ResourceExhaustedError(
                "too many sign-ins wait for the OIDC provider: try again later", reason="TOO_MANY_SIGN_INS"
            )
        self._exchanges += 1
        try:
            async with asyncio.timeout(LONGEST_EXCHANGE):
                answer = await self._threads.call(lambda: self._exchange(code, kept))
        except RefusedFormError as error:
            code = error.code if _ERROR_CODE.fullmatch(error.code) else ""
            logger.warning("the OIDC provider refused a code", error=code, status=error.status)
            raise _refused(f"it did not accept the code: {code or error.status}") from error
        except (DocumentError, TimeoutError) as error:
            logger.warning("the OIDC provider did not answer a sign-in", error=str(error) or "no answer")
            raise UnavailableError(
                "the OIDC provider does not answer now: sign in again later", reason="OIDC_UNAVAILABLE"
            ) from error
        finally:
            self._exchanges -= 1
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise _refused("its answer has no ID token")
        return token

    def _exchange(self, code: str, kept: _Kept) -> dict[str, object]:
        """Sends a code to the provider. It blocks."""
        provider = self._method.provider
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": kept.redirect_uri,
            "client_id": self._client.client_id,
            "code_verifier": kept.verifier,
        }
        headers = {}
        secret = self._client.client_secret()
        if secret and provider.takes_secret_in_header:
            pair = f"{quote(self._client.client_id, safe='')}:{quote(secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        elif secret:
            form["client_secret"] = secret
        return post_form(provider.token_endpoint, form, headers, self._client.ca_file)

    async def _checked_expiry(self, token: str, nonce: str) -> float:
        """Checks an ID token. Returns when it expires."""
        if await self._method.identify(Credentials({AUTHORIZATION: f"Bearer {token}"})) is None:
            raise _refused("its ID token is not a JWT")
        claims = await self._method.claims_of(token)
        given = claims.get("nonce")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
            raise _refused("its ID token belongs to another sign-in")
        audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        authorized = claims.get("azp", self._client.client_id)
        if self._client.client_id not in audience or authorized != self._client.client_id:
            raise _refused("its ID token is for another client: set auth.oidc.client_id")
        return float(claims["exp"])


def _refused(why: str) -> UnauthenticatedError:
    return UnauthenticatedError(f"the OIDC provider did not sign you in: {why}", reason="SIGN_IN_REFUSED")
