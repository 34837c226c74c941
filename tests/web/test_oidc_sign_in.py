"""The authorization code flow with PKCE against a provider on a socket, and what attackers make of it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from spincycle_grpc.errors import SpinCycleError
from spincycle_server.identity.oidc import OidcMethod, OidcSettings
from spincycle_server.identity.oidc_keys import OidcKeys
from spincycle_server.web.oidc_sign_in import LONGEST_SIGN_IN, OidcClient, OidcSignIn, SignedIn, Started
from tests.identity.oidc_providers import Provider, chosen_provider
from tests.web.test_sessions import KeyStore, kept

REDIRECT = "https://spin.example.com/web/sign-in/oidc/callback"


@pytest.fixture(scope="module")
def running_provider() -> Iterator[Provider]:
    with chosen_provider() as chosen:
        yield chosen


@pytest.fixture
def provider(running_provider: Provider) -> Provider:
    """The provider as it was at first. It is shared, because its key takes long to make."""
    running_provider.documents.clear()
    running_provider.forms.clear()
    running_provider.token_changes = {}
    return running_provider


@dataclass
class Manager:
    """The sign-in of one Request Manager."""

    sign_in: OidcSignIn

    async def start(self, return_to: str = "/requests/abc") -> Started:
        return await self.sign_in.start(REDIRECT, return_to, is_secure=True)

    async def finish(self, cookies: str, url: str, **changes: str | None) -> SignedIn:
        """Ends a sign-in at the URL to which the provider sends the browser, with changed parameters."""
        answer = {**dict(parse_qsl(urlsplit(url).query)), **changes}
        given = {name: text for name, text in answer.items() if text is not None}
        return await self.sign_in.finish(cookies, given, is_secure=True)

    async def refusal(self, cookies: str, url: str, **changes: str | None) -> str:
        with pytest.raises(SpinCycleError) as caught:
            await self.finish(cookies, url, **changes)
        return caught.value.reason


Make = Callable[..., Manager]


@pytest.fixture
async def make(provider: Provider) -> Make:
    """Makes the sign-ins of Request Managers that share a database."""
    store = KeyStore()
    keys = OidcKeys(provider.issuer)
    await keys.read()

    def manager(secret: str = "", client_id: str = "spincycle") -> Manager:
        settings = OidcSettings(
            issuer=provider.issuer, audience=("spincycle", "other"), algorithms=("RS256",), leeway=3,
            name_claim="sub", roles_claim="roles",
        )  # fmt: skip
        client = OidcClient(
            client_id=client_id, client_secret=lambda: secret, scopes=("email", "openid"), ca_file=""
        )
        return Manager(OidcSignIn(client, OidcMethod(settings, keys), store.sealer(), store.clock))

    manager.store = store  # type: ignore[attr-defined]
    return manager


async def test_a_user_signs_in_at_one_server_and_comes_back_to_another(
    provider: Provider, make: Make
) -> None:
    started = await make().start()
    asked = dict(parse_qsl(urlsplit(started.location).query))
    assert asked["scope"] == "openid email"
    assert asked["redirect_uri"] == REDIRECT
    cookies = kept(started.headers)
    assert all(b"; HttpOnly; SameSite=Lax; Secure" in text for _, text in started.headers)
    for secret in (asked["state"], asked["nonce"]):
        assert secret not in cookies
    done = await make().finish(cookies, provider.sign_in(started.location))
    assert done.return_to == "/requests/abc"
    assert done.token.count(".") == 2
    [(form, authorization)] = provider.forms
    assert len(form["code_verifier"]) >= 43
    assert form["code_verifier"] not in started.location
    assert ("client_secret" in form, authorization) == (False, "")


async def test_a_client_with_a_secret_sends_it_as_the_provider_asks(provider: Provider, make: Make) -> None:
    manager = make("s3/cret")
    started = await manager.start()
    await manager.finish(kept(started.headers), provider.sign_in(started.location))
    [(form, authorization)] = provider.forms
    assert base64.b64decode(authorization.removeprefix("Basic ")) == b"spincycle:s3%2Fcret"
    assert "client_secret" not in form


async def test_the_answer_must_belong_to_a_sign_in_of_this_browser(provider: Provider, make: Make) -> None:
    manager = make()
    mine, theirs = await manager.start(), await manager.start()
    back = provider.sign_in(theirs.location)  # An attacker lets a victim end the attacker's sign-in.
    cookies = kept(mine.headers)
    assert await manager.refusal(cookies, back) == "SIGN_IN_EXPIRED"
    assert await manager.refusal("", back) == "SIGN_IN_EXPIRED"
    assert await manager.refusal("__Host-spincycle-sign-in=AAAA", back) == "SIGN_IN_EXPIRED"
    assert await manager.refusal(kept(theirs.headers), back, state=None) == "SIGN_IN_EXPIRED"
    assert await manager.refusal(kept(theirs.headers), back, state="x") == "SIGN_IN_EXPIRED"
    assert provider.forms == []
    make.store.now += LONGEST_SIGN_IN  # type: ignore[attr-defined]
    assert await manager.refusal(kept(theirs.headers), back) == "SIGN_IN_EXPIRED"


async def test_a_code_works_once_and_only_with_its_verifier(provider: Provider, make: Make) -> None:
    manager = make()
    started = await manager.start()
    back, cookies = provider.sign_in(started.location), kept(started.headers)
    await manager.finish(cookies, back)
    assert await manager.refusal(cookies, back) == "SIGN_IN_REFUSED"
    other = await manager.start()
    stolen = parse_qs(urlsplit(provider.sign_in(started.location)).query)["code"][0]
    assert await manager.refusal(kept(other.headers), provider.sign_in(other.location), code=stolen) == (
        "SIGN_IN_REFUSED"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nonce": "another"}, "SIGN_IN_REFUSED"),
        ({"nonce": None}, "SIGN_IN_REFUSED"),
        ({"nonce": 7}, "SIGN_IN_REFUSED"),
        ({"aud": "other"}, "SIGN_IN_REFUSED"),
        ({"aud": ["spincycle", "other"], "azp": "other"}, "SIGN_IN_REFUSED"),
        ({"aud": "foreign"}, "INVALID_TOKEN"),
        ({"iss": "https://evil.example"}, "INVALID_TOKEN"),
        ({"exp": 1_700_000_000}, "TOKEN_EXPIRED"),
        ({"sub": None}, "INVALID_TOKEN"),
    ],
)
async def test_the_token_must_be_of_this_sign_in_and_for_this_client(
    provider: Provider, make: Make, changes: dict[str, object], reason: str
) -> None:
    manager = make()
    provider.token_changes = changes
    started = await manager.start()
    assert await manager.refusal(kept(started.headers), provider.sign_in(started.location)) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://evil.example"}, "SIGN_IN_REFUSED"),
        ({"error": "access_denied"}, "SIGN_IN_REFUSED"),
        ({"error": "<script>"}, "SIGN_IN_REFUSED"),
        ({"code": None}, "SIGN_IN_REFUSED"),
        ({"iss": None}, ""),
    ],
)
async def test_an_error_of_the_provider_and_an_answer_of_another_are_refused(
    provider: Provider, make: Make, changes: dict[str, str | None], reason: str
) -> None:
    manager = make()
    started = await manager.start()
    back = provider.sign_in(started.location)
    if not reason:
        assert (await manager.finish(kept(started.headers), back, **changes)).token
        return
    with pytest.raises(SpinCycleError) as caught:
        await manager.finish(kept(started.headers), back, **changes)
    assert caught.value.reason == reason
    assert "<" not in caught.value.message
    assert provider.forms == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((503, b""), "OIDC_UNAVAILABLE"),
        ((200, b"<html>"), "OIDC_UNAVAILABLE"),
        ((302, b"https://evil.example/"), "OIDC_UNAVAILABLE"),
        ((200, b"{}"), "SIGN_IN_REFUSED"),
        ((200, b'{"id_token": 7}'), "SIGN_IN_REFUSED"),
        ((200, b'{"id_token": "no-jwt"}'), "SIGN_IN_REFUSED"),
        ((401, b'{"error": "invalid_client"}'), "SIGN_IN_REFUSED"),
        ((400, b"\xff"), "SIGN_IN_REFUSED"),
    ],
)
async def test_odd_answers_to_a_code_are_refused(
    provider: Provider, make: Make, answer: tuple[int, bytes], reason: str
) -> None:
    manager = make()
    provider.documents["/token"] = answer
    started = await manager.start()
    assert await manager.refusal(kept(started.headers), provider.sign_in(started.location)) == reason


@pytest.mark.parametrize(
    "return_to",
    ["https://evil.example", "//evil.example", "/\\evil.example", "", "requests", "/a\nb", "/" + "x" * 2000],
)
async def test_a_user_returns_to_the_page_and_nowhere_else(
    provider: Provider, make: Make, return_to: str
) -> None:
    manager = make()
    started = await manager.start(return_to)
    done = await manager.finish(kept(started.headers), provider.sign_in(started.location))
    assert done.return_to == "/"


async def test_nobody_signs_in_while_the_provider_was_never_read(provider: Provider) -> None:
    settings = OidcSettings(
        issuer=provider.issuer, audience=("a",), algorithms=("RS256",), leeway=3, name_claim="sub",
        roles_claim="roles",
    )  # fmt: skip
    client = OidcClient(client_id="a", client_secret=str, scopes=(), ca_file="")
    sign_in = OidcSignIn(client, OidcMethod(settings, OidcKeys(provider.issuer)), KeyStore().sealer())
    with pytest.raises(SpinCycleError) as caught:
        await sign_in.start(REDIRECT, "/", is_secure=True)
    assert caught.value.reason == "OIDC_UNAVAILABLE"
