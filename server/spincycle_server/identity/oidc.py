"""OIDC: identifies users by the signed tokens (JWT) of an identity provider."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from joserfc import jws, jwt
from joserfc.errors import (
    ExpiredTokenError,
    InvalidClaimError,
    JoseError,
    MissingClaimError,
    UnsupportedAlgorithmError,
)
from joserfc.jwt import JWTClaimsRegistry

from spincycle_grpc.errors import UnauthenticatedError, UnavailableError
from spincycle_server.identity.credentials import AUTHORIZATION, Credentials
from spincycle_server.identity.identity import Identity
from spincycle_server.identity.oidc_claims import caller_of
from spincycle_server.identity.oidc_keys import OidcKeys, OidcProvider, SigningKey
from spincycle_server.token_text import TOKEN_PREFIX

MAX_TOKEN = 16 * 1024
"""The longest token in characters."""

MAX_CACHED = 10_000
"""The maximum number of verified tokens that are remembered. The least recently used one is dropped first."""

_MALFORMED = (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)
"""The errors of parsing a malformed token."""

_FOREVER = 2.0**40
"""A time that never comes, in seconds since the Unix epoch. A claim can be a larger integer than a float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """The requirements for a token.

    Attributes:
        issuer: Who issued it.
        audience: For whom it was issued: one of these.
        algorithms: How it may be signed. Only algorithms with a public key are possible.
        leeway: Seconds by which the provider's clock may differ.
        name_claim: The path of the claim with the caller's name.
        roles_claim: The path of the claim with the caller's roles.
    """

    issuer: str
    audience: tuple[str, ...]
    algorithms: tuple[str, ...]
    leeway: int
    name_claim: str
    roles_claim: str


class _Registry(jws.JWSRegistry):
    """Allows the chosen algorithms and nothing else. Long headers can contain certificates."""

    max_header_length = MAX_TOKEN
    max_payload_length = MAX_TOKEN
    max_signature_length = MAX_TOKEN

    def get_alg(self, name: str) -> Any:  # joserfc warns of names that providers still use
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


class _Verified(NamedTuple):
    identity: Identity
    expires_at: float
    thumbprint: str


class OidcMethod:
    """Identifies users with the tokens of an OIDC provider.

    Args:
        settings: The requirements for a token.
        keys: The keys of the provider.
        clock: Returns the time in seconds since the Unix epoch.
    """

    def __init__(
        self, settings: OidcSettings, keys: OidcKeys, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._registry = _Registry(algorithms=settings.algorithms, strict_check_header=False)
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self.limits = keys.limits
        self.hint = f"a token of {settings.issuer} (header `Authorization: Bearer eyJ...`)"

    @property
    def issuer(self) -> str:
        """The provider."""
        return self._settings.issuer

    @property
    def provider(self) -> OidcProvider:
        """What the provider says of itself, with the addresses for a sign-in.

        Raises:
            UnavailableError: The provider has not answered yet, or has no such addresses. Reason:
                OIDC_UNAVAILABLE.
        """
        provider = self._keys.provider
        if provider is None or not (provider.authorization_endpoint and provider.token_endpoint):
            raise UnavailableError(
                "the OIDC provider does not say where users sign in, or does not answer: try again later",
                reason="OIDC_UNAVAILABLE",
            )
        return provider

    async def claims_of(self, text: str) -> Mapping[str, Any]:
        """Returns the claims of a token, after the checks of `identify`.

        Raises:
            SpinCycleError: As for `identify`.
        """
        algorithm, kid = self._header_of(text)
        return self._claims_of(text, await self._keys.find(kid, algorithm))

    async def identify(self, credentials: Credentials) -> Identity | None:
        """Returns who calls; None if the call has no JWT.

        Raises:
            UnauthenticatedError: The token is invalid (reason INVALID_TOKEN) or has expired (TOKEN_EXPIRED).
            UnavailableError: The provider's keys are unknown, and it does not answer. Reason:
                OIDC_UNAVAILABLE.
            ResourceExhaustedError: Too many calls wait for the provider's keys. Reason:
                TOO_MANY_UNKNOWN_TOKENS.
        """
        text = credentials.bearer_token
        if text.count(".") != 2 or text.startswith(TOKEN_PREFIX):
            return None
        if len(text) > MAX_TOKEN:
            raise _invalid(f"it is longer than {MAX_TOKEN} characters")
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        known = self._known(digest)
        if known is not None:
            return known
        verified = await self._verify(text)
        self._verified[digest] = verified
        if len(self._verified) > MAX_CACHED:
            self._verified.popitem(last=False)
        return verified.identity

    def recall(self, credentials: Credentials) -> Identity | None:
        """Returns who calls, if the call has a JWT that was verified before and is still valid."""
        scheme, _, text = credentials.metadata.get(AUTHORIZATION, "").partition(" ")
        if scheme != "Bearer" or len(text) > MAX_TOKEN:
            return None
        return self._known(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest())

    def _known(self, digest: bytes) -> Identity | None:
        known = self._verified.get(digest)
        if known is None:
            return None
        if not self._is_current(known.expires_at, known.thumbprint):
            del self._verified[digest]
            return None
        self._verified.move_to_end(digest)
        return known.identity

    async def _verify(self, text: str) -> _Verified:
        algorithm, kid = self._header_of(text)
        key = await self._keys.find(kid, algorithm)
        claims = self._claims_of(text, key)
        caller = caller_of(claims, self._settings.name_claim, self._settings.roles_claim)
        expires_at = min(claims["exp"], _FOREVER) + self._settings.leeway
        is_current = partial(self._is_current, expires_at, key.thumbprint)
        return _Verified(Identity(caller, "oidc", is_current), expires_at, key.thumbprint)

    def _header_of(self, text: str) -> tuple[str, str]:
        """Returns the algorithm and the key id of a token, before anything of it is trusted."""
        try:
            header = jws.extract_compact(text.encode(), registry=self._registry).headers()
            algorithm, kid = header["alg"], header.get("kid", "")
        except _MALFORMED as error:
            raise _invalid("it cannot be read") from error
        if algorithm not in self._settings.algorithms:
            raise _invalid(f"it must be signed with one of {', '.join(self._settings.algorithms)}")
        if "crit" in header or not isinstance(kid, str):
            raise _invalid("its header has an extension that this server does not know")
        return algorithm, kid

    def _claims_of(self, text: str, key: SigningKey) -> Mapping[str, Any]:
        """Returns the claims of a token, after checking its signature, issuer, audience and times."""
        settings = self._settings
        rules = JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=settings.leeway,
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "values": list(settings.audience)},
            exp={"essential": True},
        )
        try:
            claims = jwt.decode(text, key.key, registry=self._registry).claims
            rules.validate(claims)
        except ExpiredTokenError as error:
            raise UnauthenticatedError(
                "the token has expired: get a new one from the OIDC provider", reason="TOKEN_EXPIRED"
            ) from error
        except (MissingClaimError, InvalidClaimError) as error:
            raise _invalid(f"its claims are not those that this server expects ({error})") from error
        except _MALFORMED as error:
            raise _invalid("its signature does not match") from error
        return claims

    def _is_current(self, expires_at: float, thumbprint: str) -> bool:
        return self._clock() < expires_at and self._keys.has(thumbprint)


def _invalid(why: str) -> UnauthenticatedError:
    return UnauthenticatedError(
        f"the token is not valid: {why}. Get a new one from the OIDC provider", reason="INVALID_TOKEN"
    )
