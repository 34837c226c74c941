"""OIDC as a method of authentication: valid tokens, forged tokens, and changes of the provider's keys."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from structlog.testing import capture_logs

from spincycle_grpc.auth import Caller
from spincycle_grpc.errors import SpinCycleError, UnauthenticatedError, UnavailableError
from spincycle_server.identity import Credentials
from spincycle_server.identity import oidc as oidc_module
from spincycle_server.identity.oidc import MAX_TOKEN, OidcMethod, OidcSettings
from spincycle_server.identity.oidc_keys import OidcKeys
from tests.identity.oidc_providers import Provider, chosen_provider, log_in, real_provider, rsa_key

ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)


class Clock:
    """The time of the method, which a test moves."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def provider() -> Iterator[Provider]:
    with chosen_provider() as provider:
        yield provider


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def method(provider: Provider, clock: Clock) -> OidcMethod:
    return make_method(provider.issuer, clock)


def make_method(issuer: str, clock: Clock | None = None, **changes: Any) -> OidcMethod:
    fields: dict[str, Any] = {
        "issuer": issuer,
        "audience": ("spincycle", "spincycle-dev"),
        "algorithms": ("RS256", "ES256"),
        "leeway": 3,
        "name_claim": "sub",
        "roles_claim": "roles",
    } | changes
    clock = clock or Clock()
    keys = OidcKeys(issuer, clock=lambda: clock() - 1e9)
    return OidcMethod(OidcSettings(**fields), keys, clock)


def bearer(token: str) -> Credentials:
    return Credentials({"authorization": f"Bearer {token}"})


def part(data: object) -> str:
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


async def refusal(method: OidcMethod, token: str) -> SpinCycleError:
    with pytest.raises(SpinCycleError) as raised:
        await method.identify(bearer(token))
    assert token not in raised.value.message
    return raised.value


async def test_a_token_of_a_real_provider_identifies_its_caller() -> None:
    with real_provider() as issuer:
        method = make_method(issuer, name_claim="email")
        token = await asyncio.to_thread(
            log_in, issuer, "alice", "spincycle", email="alice@example.com", roles=["dba", "ops"]
        )
        other = await asyncio.to_thread(log_in, issuer, "alice", "another-service")
        identity = await method.identify(bearer(token))
        assert identity is not None
        assert identity.caller == Caller("alice@example.com", frozenset({"dba", "ops"}))
        assert identity.method == "oidc"
        assert identity.is_current()
        assert (await refusal(method, other)).reason == "INVALID_TOKEN"
        forged = token[:-8] + ("AAAAAAAA" if not token.endswith("AAAAAAAA") else "BBBBBBBB")
        assert (await refusal(method, forged)).reason == "INVALID_TOKEN"


KEYS: dict[str, Callable[[], RSAKey | ECKey | OKPKey]] = {
    **{algorithm: lambda: rsa_key("") for algorithm in ALGORITHMS[:6]},
    "ES256": lambda: ECKey.generate_key("P-256"),
    "ES384": lambda: ECKey.generate_key("P-384"),
    "ES512": lambda: ECKey.generate_key("P-521"),
    "EdDSA": lambda: OKPKey.generate_key("Ed25519"),
    "Ed25519": lambda: OKPKey.generate_key("Ed25519"),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_every_algorithm_with_a_public_key_is_supported(provider: Provider, algorithm: str) -> None:
    key = KEYS[algorithm]()
    provider.keys.append(key)
    method = make_method(provider.issuer, algorithms=(algorithm,))
    token = provider.token(key, algorithm, header={"kid": None}) if algorithm[0] == "E" else None
    if token is None:
        provider.keys = [key]
        token = provider.token(key, algorithm)
    identity = await method.identify(bearer(token))
    assert identity is not None
    assert identity.caller == Caller("alice")


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials(),
        bearer("spincycle_abc"),
        bearer("another-token"),
        bearer("a.b.c.d.e"),
        Credentials({"authorization": "Basic a.b.c"}),
    ],
)
async def test_other_credentials_are_left_to_other_methods(
    method: OidcMethod, provider: Provider, credentials: Credentials
) -> None:
    assert await method.identify(credentials) is None
    assert provider.reads == []


async def test_a_verified_token_is_not_verified_again(
    method: OidcMethod, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = provider.token()
    first = await method.identify(bearer(token))
    monkeypatch.setattr(jwt, "decode", None)
    assert await method.identify(bearer(token)) is first


async def test_a_verified_token_is_recalled_until_it_expires(
    method: OidcMethod, provider: Provider, clock: Clock
) -> None:
    token = provider.token(exp=int(time.time()) + 100)
    assert method.recall(bearer(token)) is None
    identity = await method.identify(bearer(token))
    assert method.recall(bearer(token)) is identity
    assert method.recall(bearer(provider.token(sub="other"))) is None
    clock.ahead = 104
    assert method.recall(bearer(token)) is None


async def test_only_a_limited_number_of_tokens_is_remembered(
    method: OidcMethod, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc_module, "MAX_CACHED", 2)
    old, used, new = (provider.token(sub=name) for name in ("old", "used", "new"))
    for token in (used, old, used, new):
        await method.identify(bearer(token))
    monkeypatch.setattr(jwt, "decode", None)
    assert await method.identify(bearer(used)) is not None
    assert await method.identify(bearer(new)) is not None
    with pytest.raises(UnauthenticatedError):
        await method.identify(bearer(old))


async def test_a_token_works_until_it_expires_plus_the_leeway(
    method: OidcMethod, provider: Provider, clock: Clock
) -> None:
    token = provider.token(exp=int(time.time()) + 100)
    identity = await method.identify(bearer(token))
    assert identity is not None
    clock.ahead = 101
    assert identity.is_current()
    clock.ahead = 104
    assert not identity.is_current()
    assert (await refusal(method, token)).reason == "TOKEN_EXPIRED"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": None}, "INVALID_TOKEN"),
        ({"exp": int(time.time()) - 60}, "TOKEN_EXPIRED"),
        ({"exp": "tomorrow"}, "INVALID_TOKEN"),
        ({"exp": float("nan")}, "INVALID_TOKEN"),
        ({"exp": float("inf")}, "INVALID_TOKEN"),
        ({"exp": True}, "INVALID_TOKEN"),
        ({"nbf": int(time.time()) + 3600}, "INVALID_TOKEN"),
        ({"iat": int(time.time()) + 3600}, "INVALID_TOKEN"),
        ({"iss": "https://evil.example"}, "INVALID_TOKEN"),
        ({"iss": None}, "INVALID_TOKEN"),
        ({"aud": "another-service"}, "INVALID_TOKEN"),
        ({"aud": ["another-service"]}, "INVALID_TOKEN"),
        ({"aud": []}, "INVALID_TOKEN"),
        ({"aud": None}, "INVALID_TOKEN"),
        ({"aud": {"spincycle": 1}}, "INVALID_TOKEN"),
        ({"sub": None}, "INVALID_TOKEN"),
        ({"sub": 7}, "INVALID_TOKEN"),
        ({"sub": ""}, "INVALID_TOKEN"),
        ({"sub": "x" * 101}, "INVALID_TOKEN"),
        ({"sub": "a\nb"}, "INVALID_TOKEN"),
        ({"roles": "dba"}, "INVALID_TOKEN"),
        ({"roles": [1]}, "INVALID_TOKEN"),
        ({"roles": {"dba": True}}, "INVALID_TOKEN"),
    ],
)
async def test_a_signed_token_with_wrong_claims_is_refused(
    method: OidcMethod, provider: Provider, changes: dict[str, Any], reason: str
) -> None:
    assert (await refusal(method, provider.token(**changes))).reason == reason


async def test_a_signed_token_with_unusual_claims_is_accepted(method: OidcMethod, provider: Provider) -> None:
    now = int(time.time())
    unusual: tuple[dict[str, Any], ...] = (
        {"exp": 10**400},
        {"exp": now + 60.5},
        {"nbf": now + 1},
        {"aud": ["another-service", "spincycle-dev"]},
        {"roles": []},
    )
    for changes in unusual:
        identity = await method.identify(bearer(provider.token(**changes)))
        assert identity is not None, changes
        assert identity.is_current()


def forged_tokens(provider: Provider) -> dict[str, str]:
    """Returns tokens that look like the provider's, but are not signed with its key."""
    key = provider.keys[0]
    assert isinstance(key, RSAKey)
    claims = part(provider.claims())
    genuine = provider.token().split(".")
    head = {"alg": "RS256", "kid": "first"}
    public_pem = key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def with_hmac(algorithm: str, secret: bytes) -> str:
        signed = f"{part({'alg': algorithm, 'kid': 'first'})}.{claims}"
        return f"{signed}.{part(hmac.digest(secret, signed.encode(), 'sha' + algorithm[2:]))}"

    stranger = rsa_key("first", "stranger")
    return {
        "no signature": f"{part({'alg': 'none'})}.{claims}.",
        "no signature, in other letters": f"{part({'alg': 'NoNe', 'kid': 'first'})}.{claims}.",
        "no algorithm": f"{part({'kid': 'first'})}.{claims}.{genuine[2]}",
        "an algorithm that is a list": f"{part({'alg': ['RS256'], 'kid': 'first'})}.{claims}.{genuine[2]}",
        "HMAC with the public key as PEM": with_hmac("HS256", public_pem),
        "HMAC with the public key as JSON": with_hmac(
            "HS512", json.dumps(key.as_dict(private=False)).encode()
        ),
        "HMAC with nothing": with_hmac("HS256", b""),
        "the key of a stranger": provider.token(stranger),
        "a key in the header": provider.token(stranger, header={"jwk": stranger.as_dict(private=False)}),
        "a key at an address": provider.token(
            stranger, header={"jku": "https://evil.example/jwks", "kid": "other"}
        ),
        "another kind of key": provider.token(ECKey.generate_key("P-256", {"kid": "first"}), "ES256"),
        "other claims": f"{genuine[0]}.{part(provider.claims(sub='admin'))}.{genuine[2]}",
        "no signature left": f"{genuine[0]}.{genuine[1]}.",
        "an unencoded payload": f"{part({**head, 'b64': False, 'crit': ['b64']})}.x.{genuine[2]}",
        "an unknown extension": f"{part({**head, 'crit': ['x'], 'x': 1})}.{claims}.{genuine[2]}",
        "a key id that is a number": f"{part({'alg': 'RS256', 'kid': 1})}.{claims}.{genuine[2]}",
        "an algorithm that is not allowed": provider.token(algorithm="PS256"),
    }


FORGERIES = (
    "no signature", "no signature, in other letters", "no algorithm", "an algorithm that is a list",
    "HMAC with the public key as PEM", "HMAC with the public key as JSON", "HMAC with nothing",
    "the key of a stranger", "a key in the header", "a key at an address", "another kind of key",
    "other claims", "no signature left", "an unencoded payload", "an unknown extension",
    "a key id that is a number", "an algorithm that is not allowed",
)  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_token_is_refused(method: OidcMethod, provider: Provider, forgery: str) -> None:
    tokens = forged_tokens(provider)
    assert set(tokens) == set(FORGERIES)
    assert await method.identify(bearer(provider.token())) is not None
    with capture_logs() as logs:
        error = await refusal(method, tokens[forgery])
    assert isinstance(error, UnauthenticatedError)
    assert error.reason == "INVALID_TOKEN"
    assert logs == []


@pytest.mark.parametrize(
    "token",
    [
        "..",
        "a.b.c",
        "=.=.=",
        "eyJ.eyJ.eyJ",
        f"{part(b'[]')}.e30.e30",
        f"{part(b'null')}.e30.e30",
        f"{part(b'[' * 9000)}.e30.e30",
        f"{part({'alg': 'RS256', 'kid': 'first'})}.{part(b'{' * 9)}.x",
        "\udcff.\udcff.é",
        f"{'A' * (MAX_TOKEN + 1)}.e30.e30",
        f"{'A' * 10_000_000}.e30.e30",
    ],
    ids=lambda token: hashlib.sha256(repr(token).encode()).hexdigest()[:6],
)
async def test_garbage_is_refused(method: OidcMethod, token: str) -> None:
    assert (await refusal(method, token)).reason == "INVALID_TOKEN"


async def test_a_signed_token_with_a_malformed_payload_is_refused(
    method: OidcMethod, provider: Provider
) -> None:
    for payload in (b"[]", b"7", b"{", b"[" * 9000, b"\xff", b'{"exp": ' + b"1" * 5000 + b"}"):
        token = jws.serialize_compact({"alg": "RS256", "kid": "first"}, payload, provider.keys[0])
        assert (await refusal(method, token)).reason == "INVALID_TOKEN"


async def outcomes(method: OidcMethod, token: str) -> Sequence[Any]:
    """Returns what the method returns or raises. An error that is not meant for callers is raised."""
    found = await asyncio.gather(method.identify(bearer(token)), return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, SpinCycleError):
            raise one
    return found


@settings(max_examples=300, deadline=None)
@given(st.text(), st.text(), st.text())
def test_no_text_breaks_the_method(header: str, payload: str, signature: str) -> None:
    method = make_method("http://127.0.0.1:1")
    token = f"{part(header.encode('utf-8', 'surrogatepass'))}.{payload}.{signature}"
    (outcome,) = asyncio.run(outcomes(method, token))
    assert outcome is None or outcome.reason in ("INVALID_TOKEN", "OIDC_UNAVAILABLE")


async def test_a_new_key_of_the_provider_is_found(
    method: OidcMethod, provider: Provider, clock: Clock
) -> None:
    await method.identify(bearer(provider.token()))
    clock.ahead = 60
    provider.keys.append(rsa_key("second"))
    identity = await method.identify(bearer(provider.token(provider.keys[1])))
    assert identity is not None
    assert provider.reads.count("/jwks") == 2


async def test_a_removed_key_ends_the_tokens_that_it_signed(
    method: OidcMethod, provider: Provider, clock: Clock
) -> None:
    token = provider.token()
    identity = await method.identify(bearer(token))
    assert identity is not None
    provider.keys = [rsa_key("second")]
    clock.ahead = 400
    await method._keys.read()
    assert not identity.is_current()
    assert (await refusal(method, token)).reason == "INVALID_TOKEN"


async def test_an_unavailable_provider_is_not_the_callers_fault(
    method: OidcMethod, provider: Provider, clock: Clock
) -> None:
    provider.documents["/jwks"] = (500, b"")
    token = provider.token()
    error = await refusal(method, token)
    assert isinstance(error, UnavailableError)
    assert error.reason == "OIDC_UNAVAILABLE"
    del provider.documents["/jwks"]
    clock.ahead = 60
    assert await method.identify(bearer(token)) is not None
