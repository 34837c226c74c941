"""The keys with which an OIDC provider signs its tokens."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey
from joserfc.util import to_bytes, urlsafe_b64decode

from spincycle_grpc.errors import ResourceExhaustedError, UnauthenticatedError, UnavailableError
from spincycle_server.call_threads import CallThreads
from spincycle_server.identity.oidc_documents import DocumentError, is_trustworthy, read_document
from spincycle_server.telemetry.limits import OIDC_WAITS, LimitUse

logger = structlog.get_logger(__name__)

KEYS_AGE = 300.0
"""Seconds after which the keys are read again. A key that the provider removes works for this long."""

SHORTEST_PAUSE = 10.0
"""The shortest time between two reads in seconds, however many tokens with unknown keys arrive."""

LONGEST_READ = 12.0
"""Seconds that a read of the keys, which are two documents, may take."""

MAX_KEYS = 100
"""The maximum number of keys of a provider; further keys are ignored."""

MAX_WAITING = 1000
"""The maximum number of calls that wait until the keys are read."""

_SMALLEST_RSA = 2048  # bits
_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}

Key = RSAKey | ECKey | OKPKey


class SigningKey(NamedTuple):
    """A public key of the provider.

    Attributes:
        key: The key.
        kid: The id that tokens name; "" without one.
        thumbprint: Its SHA-256 by RFC 7638.
    """

    key: Key
    kid: str
    thumbprint: str

    def signs(self, algorithm: str) -> bool:
        """Whether the key may sign with an algorithm."""
        return self.key.key_type == _KEY_TYPES[algorithm[:2]] and self.key.alg in (None, algorithm)


class OidcProvider(NamedTuple):
    """What the provider says of itself.

    Attributes:
        authorization_endpoint: Where a browser signs in; "" if it does not say.
        token_endpoint: Where a client exchanges a code for a token; "" if it does not say.
        takes_secret_in_header: Whether a client may send its secret in the header `Authorization`.
    """

    authorization_endpoint: str
    token_endpoint: str
    takes_secret_in_header: bool


class OidcKeys:
    """Reads the keys of a provider, and keeps them while the provider is away.

    Args:
        issuer: The URL of the provider. The document `.well-known/openid-configuration` below it must name
            the same issuer.
        ca_file: The file with the CAs to trust; "" for those of the system.
        read: Reads a document.
        clock: Returns the time in seconds. It never goes back.

    Attributes:
        provider: What the provider says of itself; None if it was not read yet.
    """

    def __init__(
        self,
        issuer: str,
        ca_file: str = "",
        *,
        read: Callable[[str, str], dict[str, Any]] = read_document,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._ca_file = ca_file
        self._read_document = read
        self._clock = clock
        self._threads = CallThreads("oidc", 1)
        self._keys: Sequence[SigningKey] = ()
        self.provider: OidcProvider | None = None
        self._thumbprints: frozenset[str] = frozenset()
        self._reading: asyncio.Task[None] | None = None
        self._read_at = -math.inf
        self._trouble = "they were not read yet"
        self._waiting = 0

    def limits(self) -> Iterable[LimitUse]:
        """Returns how many calls may wait for the keys, and how many do."""
        return (LimitUse(OIDC_WAITS, MAX_WAITING, self._waiting),)

    def has(self, thumbprint: str) -> bool:
        """Whether the provider still has a key."""
        return thumbprint in self._thumbprints

    async def find(self, kid: str, algorithm: str) -> SigningKey:
        """Returns the key of a token. Reads the keys again if it is unknown.

        Args:
            kid: The id of the key that the token names; "" if it names none. Then the provider must have a
                single key for the algorithm.
            algorithm: The algorithm of the signature.

        Raises:
            UnauthenticatedError: The provider does not have the key. Reason: INVALID_TOKEN.
            UnavailableError: The provider does not answer, and may have the key. Reason: OIDC_UNAVAILABLE.
            ResourceExhaustedError: Too many calls wait for the keys. Reason: TOO_MANY_UNKNOWN_TOKENS.
        """
        found = self._find(kid, algorithm)
        if found is None:
            await self._wait_for_read()
            found = self._find(kid, algorithm)
        if found is not None:
            return found
        if self._trouble:
            raise UnavailableError(
                "the keys of the OIDC provider cannot be read now: try again later", reason="OIDC_UNAVAILABLE"
            )
        raise UnauthenticatedError(
            "the token is signed with a key that the OIDC provider does not publish: get a new token",
            reason="INVALID_TOKEN",
        )

    async def run(self) -> None:
        """Reads the keys again and again, until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(SHORTEST_PAUSE if self._trouble else KEYS_AGE)

    async def read(self) -> None:
        """Reads the keys, unless they were read a moment ago. Keeps the last keys if that fails."""
        if self._reading is None:
            if self._clock() - self._read_at < SHORTEST_PAUSE:
                return
            self._read_at = self._clock()
            self._reading = asyncio.create_task(self._read_now(), name="oidc-keys")
        await asyncio.shield(self._reading)

    def _find(self, kid: str, algorithm: str) -> SigningKey | None:
        found = [one for one in self._keys if one.signs(algorithm) and (not kid or one.kid == kid)]
        return found[0] if len(found) == 1 else None

    async def _wait_for_read(self) -> None:
        if self._waiting >= MAX_WAITING:
            raise ResourceExhaustedError(
                "too many calls wait for the keys of the OIDC provider: try again later",
                reason="TOO_MANY_UNKNOWN_TOKENS",
            )
        self._waiting += 1
        try:
            await self.read()
        finally:
            self._waiting -= 1

    async def _read_now(self) -> None:
        try:
            async with asyncio.timeout(LONGEST_READ):
                keys, self.provider = await self._threads.call(self._load)
        except (DocumentError, TimeoutError) as error:
            trouble = str(error) or f"no answer within {LONGEST_READ:g} seconds"
            if trouble != self._trouble:
                logger.warning(
                    "the keys of the OIDC provider cannot be read", error=trouble, known_keys=len(self._keys)
                )
            self._trouble = trouble
        else:
            thumbprints = frozenset(one.thumbprint for one in keys)
            if self._trouble or thumbprints != self._thumbprints:
                logger.info("keys of the OIDC provider read", issuer=self._issuer, keys=len(keys))
            self._keys, self._thumbprints, self._trouble = keys, thumbprints, ""
        finally:
            self._reading = None

    def _load(self) -> tuple[Sequence[SigningKey], OidcProvider]:
        place = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        configuration = self._read_document(place, self._ca_file)
        issuer, jwks_uri = configuration.get("issuer"), configuration.get("jwks_uri")
        if issuer != self._issuer:
            raise DocumentError(f"{place} names the issuer {issuer!r}: set auth.oidc.issuer to the same text")
        if not isinstance(jwks_uri, str):
            raise DocumentError(f"{place} has no jwks_uri")
        keys = self._read_document(jwks_uri, self._ca_file).get("keys")
        if not isinstance(keys, list):
            raise DocumentError(f"{jwks_uri} has no list of keys")
        found = [usable for one in keys[:MAX_KEYS] if (usable := signing_key(one)) is not None]
        return found, _provider(configuration)


def _provider(configuration: Mapping[str, Any]) -> OidcProvider:
    def text(name: str) -> str:
        value = configuration.get(name)
        return value if isinstance(value, str) and is_trustworthy(value) else ""

    methods = configuration.get("token_endpoint_auth_methods_supported")
    in_header = not isinstance(methods, list) or "client_secret_basic" in methods  # The default of OIDC.
    return OidcProvider(text("authorization_endpoint"), text("token_endpoint"), in_header)


def signing_key(data: object) -> SigningKey | None:
    """Returns a key of a JWKS; None for a key that may not sign tokens, or that is too weak."""
    if not isinstance(data, dict) or data.get("use", "sig") != "sig":
        return None
    kid, kind = data.get("kid", ""), data.get("kty")
    if kind not in _KEY_TYPES.values() or not isinstance(kid, str):
        return None
    try:
        if kind == "RSA" and len(urlsafe_b64decode(to_bytes(data["n"]))) * 8 < _SMALLEST_RSA:
            return None
        key = JWKRegistry.import_key(data)
        if not isinstance(key, Key) or key.is_private:
            return None
        return SigningKey(key, kid, key.thumbprint())
    except (JoseError, ValueError, TypeError, KeyError):
        return None
