"""The keys of an OIDC provider: how often they are read, and what happens while the provider is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey
from structlog.testing import capture_logs

from spincycle_grpc.errors import ResourceExhaustedError, UnauthenticatedError, UnavailableError
from spincycle_server.identity import oidc_keys
from spincycle_server.identity.oidc_keys import MAX_KEYS, SHORTEST_PAUSE, OidcKeys, signing_key
from tests.identity.oidc_providers import Provider, chosen_provider, rsa_key
from tests.limits import STEP

CONFIGURATION = "/.well-known/openid-configuration"


class Clock:
    """The time of the keys, which a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def provider() -> Iterator[Provider]:
    with chosen_provider() as provider:
        yield provider


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(provider: Provider, clock: Clock) -> OidcKeys:
    return OidcKeys(provider.issuer, clock=clock)


async def reached(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(STEP):
        while not condition():  # noqa: ASYNC110 (another thread makes it true)
            await asyncio.sleep(0.01)


async def test_many_unknown_keys_cause_one_read(keys: OidcKeys, provider: Provider, clock: Clock) -> None:
    await keys.find("first", "RS256")
    assert provider.reads == [CONFIGURATION, "/jwks"]
    clock.now += SHORTEST_PAUSE
    async with asyncio.timeout(STEP):
        answers = await asyncio.gather(
            *(keys.find(f"unknown-{number}", "RS256") for number in range(500)), return_exceptions=True
        )
    assert {type(answer) for answer in answers} == {UnauthenticatedError}
    for number in range(500):
        with pytest.raises(UnauthenticatedError):
            await keys.find(f"another-{number}", "RS256")
    assert provider.reads.count("/jwks") == 2
    clock.now += SHORTEST_PAUSE
    with pytest.raises(UnauthenticatedError):
        await keys.find("unknown", "RS256")
    assert provider.reads.count("/jwks") == 3


async def test_only_a_limited_number_of_calls_waits_for_the_keys(
    keys: OidcKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc_keys, "MAX_WAITING", 3)
    answers = await asyncio.gather(*(keys.find("unknown", "RS256") for _ in range(5)), return_exceptions=True)
    kinds = [type(answer) for answer in answers]
    assert kinds.count(ResourceExhaustedError) == 2
    assert kinds.count(UnauthenticatedError) == 3
    assert (await keys.find("first", "RS256")).kid == "first"


async def test_known_keys_work_while_the_provider_is_away(
    keys: OidcKeys, provider: Provider, clock: Clock
) -> None:
    first = await keys.find("first", "RS256")
    provider.documents["/jwks"] = (503, b"")
    clock.now += SHORTEST_PAUSE
    with capture_logs() as logs:
        await keys.read()
        clock.now += SHORTEST_PAUSE
        await keys.read()
    assert [(log["log_level"], log["known_keys"]) for log in logs] == [("warning", 1)]
    assert "status 503" in logs[0]["error"]
    assert await keys.find("first", "RS256") == first
    assert keys.has(first.thumbprint)
    with pytest.raises(UnavailableError):
        await keys.find("second", "RS256")
    del provider.documents["/jwks"]
    clock.now += SHORTEST_PAUSE
    with pytest.raises(UnauthenticatedError):
        await keys.find("second", "RS256")


async def test_the_background_task_reads_the_keys_and_outlives_a_provider_that_is_away(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc_keys, "SHORTEST_PAUSE", 0.05)
    provider.documents[CONFIGURATION] = (500, b"")
    keys = OidcKeys(provider.issuer)
    task = asyncio.create_task(keys.run())
    await reached(lambda: len(provider.reads) >= 3)
    del provider.documents[CONFIGURATION]
    await reached(lambda: keys.has(provider.keys[0].thumbprint()))
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ({CONFIGURATION: (404, b"")}, "answered with status 404"),
        ({CONFIGURATION: (302, b"http://127.0.0.1:1/")}, "answered with status 302"),
        ({CONFIGURATION: (200, b"<html>")}, "does not answer with JSON"),
        ({CONFIGURATION: (200, b"[" * 100_000)}, "does not answer with JSON"),
        ({CONFIGURATION: (200, b"[]")}, "does not answer with a JSON object"),
        (
            {CONFIGURATION: (200, b'{"issuer": "https://evil.example"}')},
            "set auth.oidc.issuer to the same text",
        ),
        ({CONFIGURATION: (200, b'{"issuer": "ISSUER"}')}, "has no jwks_uri"),
        ({CONFIGURATION: (200, b'{"issuer": "ISSUER", "jwks_uri": "http://evil.example/"}')}, "URL of HTTPS"),
        ({CONFIGURATION: (200, b'{"issuer": "ISSUER", "jwks_uri": "file:///etc/passwd"}')}, "URL of HTTPS"),
        ({"/jwks": (200, b"{}")}, "has no list of keys"),
        ({"/jwks": (200, b" " * 2_000_000 + b"{}")}, "larger than 1048576 bytes"),
    ],
)
async def test_a_document_that_is_not_as_expected_is_refused(
    keys: OidcKeys, provider: Provider, documents: dict[str, tuple[int, bytes]], message: str
) -> None:
    for path, (status, body) in documents.items():
        provider.documents[path] = (status, body.replace(b"ISSUER", provider.issuer.encode()))
    with capture_logs() as logs:
        await keys.read()
    assert [log["log_level"] for log in logs] == ["warning"]
    assert message in logs[0]["error"]


async def test_a_provider_that_cannot_be_reached_is_logged() -> None:
    keys = OidcKeys("http://127.0.0.1:1")
    with capture_logs() as logs:
        await keys.read()
    assert "Connection refused" in logs[0]["error"]


async def test_a_token_without_a_key_id_needs_a_single_key(
    keys: OidcKeys, provider: Provider, clock: Clock
) -> None:
    assert (await keys.find("", "RS256")).kid == "first"
    provider.keys.append(ECKey.generate_key("P-256"))
    clock.now += SHORTEST_PAUSE
    await keys.read()
    assert (await keys.find("", "RS256")).kid == "first"
    assert (await keys.find("", "ES256")).kid == ""
    provider.keys.append(rsa_key("second"))
    clock.now += SHORTEST_PAUSE
    await keys.read()
    with pytest.raises(UnauthenticatedError):
        await keys.find("", "RS256")


def test_keys_that_may_not_sign_tokens_are_ignored() -> None:
    good = rsa_key("k")
    public = good.as_dict(private=False)
    assert signing_key(public) is not None
    assert signing_key({**public, "use": "sig", "alg": "RS256", "x": "y"}) is not None
    symmetric = OctKey.generate_key(256).as_dict(private=True)
    unusable: tuple[object, ...] = (
        None,
        [],
        {},
        {"kty": "RSA"},
        {**public, "use": "enc"},
        {**public, "n": 7},
        {**public, "n": "!"},
        {**public, "n": "AQAB"},
        {**public, "kid": 7},
        {**public, "kty": "EC"},
        {**public, "kty": ["RSA"]},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        symmetric,
        good.as_dict(private=True),
    )
    for data in unusable:
        assert signing_key(data) is None, data


async def test_a_key_signs_only_with_its_own_algorithm(keys: OidcKeys, provider: Provider) -> None:
    provider.keys = [RSAKey.generate_key(2048, {"kid": "first", "alg": "PS256"})]
    assert (await keys.find("first", "PS256")).kid == "first"
    with pytest.raises(UnauthenticatedError):
        await keys.find("first", "RS256")


async def test_the_number_of_keys_is_limited(keys: OidcKeys, provider: Provider) -> None:
    one = provider.keys[0].as_dict(private=False)
    many = [{**one, "kid": str(number)} for number in range(MAX_KEYS + 1)]
    provider.documents["/jwks"] = (200, json.dumps({"keys": many}).encode())
    assert (await keys.find(str(MAX_KEYS - 1), "RS256")).kid == str(MAX_KEYS - 1)
    with pytest.raises(UnauthenticatedError):
        await keys.find(str(MAX_KEYS), "RS256")
