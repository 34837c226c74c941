"""Signing in at an OIDC provider of another site, in a real browser with its rules for cookies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually
from tests.identity.oidc_providers import Provider, chosen_provider
from tests.limits import ANSWER
from tests.page.axe import grave_findings
from tests.page.browsers import NARROW, Visit, visiting
from tests.page.conftest import origin_of

pytestmark = pytest.mark.page

PROVIDER = "127.0.0.2"
"""Another site than 127.0.0.1, so that cookies with SameSite=Strict do not travel from one to the other."""

NAME = "alice@example.com"
SESSION = "spincycle-session"
BEGUN = "spincycle-sign-in"
SIGN_IN = "Sign in at your identity provider"


@pytest.fixture(scope="module")
def running_provider() -> Iterator[Provider]:
    with chosen_provider(PROVIDER) as provider:
        yield provider


@pytest.fixture
def provider(running_provider: Provider) -> Provider:
    running_provider.token_changes = {"sub": NAME, "roles": ["dba"]}
    running_provider.forms.clear()
    return running_provider


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, running_provider: Provider) -> Iterator[ServerProcess]:
    directory: Path = tmp_path_factory.mktemp("oidc")
    (directory / "config").mkdir()
    oidc = {"issuer": running_provider.issuer, "audience": "spincycle"}
    settings = {"auth": {"methods": ["oidc"], "admin_roles": ["dba"], "oidc": oidc}}
    (directory / "config" / "development.yaml").write_text(json.dumps(settings))
    with running("server", "--http=127.0.0.1:0", directory=directory) as server:
        # The server asks the provider for its addresses in the background.
        with httpx.Client(base_url=origin_of(server), timeout=ANSWER) as http:
            eventually(lambda: http.get("/web/sign-in/oidc").status_code == 303)
        yield server


@pytest.fixture
def strangers(browser: Browser, server: ServerProcess, provider: Provider) -> Iterator[list[Visit]]:
    """Two users in front of different browsers, who have not signed in."""
    with visiting(browser, origin_of(server)) as one, visiting(browser, origin_of(server)) as other:
        for visit in (one, other):
            visit.others.add(provider.issuer)
            # The browser itself reports each answer with an error, and asks for an icon of its text.
            visit.refused |= {"/web/sign-in/oidc/callback", "/favicon.ico"}
        yield [one, other]


@pytest.fixture
def stranger(strangers: list[Visit]) -> Visit:
    return strangers[0]


def begin(visit: Visit, path: str = "/runners") -> dict[str, str]:
    """Goes to the provider. Returns what the server asks it for."""
    page = visit.open(path)
    page.get_by_role("link", name=SIGN_IN).click()
    expect(page.get_by_role("link", name="Continue")).to_be_visible()
    return dict(parse_qsl(urlsplit(page.url).query))


def cookies(visit: Visit) -> dict[str, dict[str, Any]]:
    """Returns the cookies of the server by name."""
    return {cookie["name"]: dict(cookie) for cookie in visit.page.context.cookies(visit.origin)}


def is_refused(visit: Visit, text: str) -> None:
    """Waits for a refusal with some text, after which nobody is signed in."""
    expect(visit.page.locator("body")).to_contain_text(text)
    assert cookies(visit) == {}
    expect(visit.open("/runners").get_by_role("link", name=SIGN_IN)).to_be_visible()


def test_a_user_signs_in_with_a_code_and_pkce_and_returns_to_the_view(
    stranger: Visit, provider: Provider
) -> None:
    page = stranger.page
    asked = begin(stranger, "/requests?state=FAIL")
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert asked["redirect_uri"] == f"{stranger.origin}/web/sign-in/oidc/callback"
    assert len(asked["state"]) >= 43
    assert len(asked["nonce"]) >= 43
    assert set(cookies(stranger)) == {BEGUN}
    assert (cookies(stranger)[BEGUN]["httpOnly"], cookies(stranger)[BEGUN]["sameSite"]) == (True, "Lax")
    page.get_by_role("link", name="Continue").click()
    expect(page.get_by_role("heading", name="Requests")).to_be_visible()
    assert page.url == f"{stranger.origin}/requests?state=FAIL"
    expect(page.get_by_text(NAME)).to_be_visible()
    [(form, _)] = provider.forms  # The provider has compared the verifier with the challenge.
    assert form["code_verifier"] not in (asked["code_challenge"], asked["state"], asked["nonce"])
    page.reload()
    expect(page.get_by_text(NAME)).to_be_visible()


def test_scripts_and_other_sites_cannot_have_the_session_and_signing_out_ends_it(stranger: Visit) -> None:
    page = stranger.page
    begin(stranger)
    page.get_by_role("link", name="Continue").click()
    expect(page.get_by_role("heading", name="Runners")).to_be_visible()
    found = cookies(stranger)
    assert set(found) == {SESSION}
    session = found[SESSION]
    assert (session["httpOnly"], session["sameSite"], session["path"]) == (True, "Strict", "/")
    assert session["expires"] > 0
    assert page.evaluate("document.cookie") == ""
    assert session["value"] not in page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("link", name=SIGN_IN)).to_be_visible()
    assert cookies(stranger) == {}
    page.reload()
    expect(page.get_by_role("link", name=SIGN_IN)).to_be_visible()
    assert page.evaluate("fetch('/web/session').then(answer => answer.json())")["signedIn"] is False


def test_an_answer_with_another_state_is_refused(stranger: Visit, provider: Provider) -> None:
    begin(stranger)
    back = urlsplit(provider.sign_in(stranger.page.url))
    query = urlencode({**dict(parse_qsl(back.query)), "state": "x" * 43})
    follow(stranger.page, f"{stranger.origin}{back.path}?{query}")
    is_refused(stranger, "this browser did not begin the sign-in")
    assert provider.forms == []


def test_a_user_cannot_be_signed_in_as_somebody_else(strangers: list[Visit], provider: Provider) -> None:
    """A link with the code of an attacker, who has signed in at the provider, ends in an error."""
    victim, attacker = strangers
    begin(victim)
    begin(attacker)
    back = provider.sign_in(attacker.page.url)
    follow(victim.page, back)
    is_refused(victim, "this browser did not begin the sign-in")
    assert provider.forms == []


def test_a_token_of_another_sign_in_is_refused(stranger: Visit, provider: Provider) -> None:
    provider.token_changes["nonce"] = "another"
    begin(stranger)
    stranger.page.get_by_role("link", name="Continue").click()
    is_refused(stranger, "its ID token belongs to another sign-in")


def test_a_code_is_of_no_use_to_others(strangers: list[Visit], provider: Provider) -> None:
    """The provider refuses the code of somebody else, because the verifier of this browser is another one."""
    thief, user = strangers
    begin(thief)
    begin(user)
    stolen = parse_qs(urlsplit(provider.sign_in(user.page.url)).query)["code"][0]
    back = urlsplit(provider.sign_in(thief.page.url))
    query = urlencode({**dict(parse_qsl(back.query)), "code": stolen})
    follow(thief.page, f"{thief.origin}{back.path}?{query}")
    is_refused(thief, "it did not accept the code: invalid_grant")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_sign_in_has_no_serious_finding(browser: Browser, server: ServerProcess, scheme: str) -> None:
    size = {"width": NARROW, "height": 740}
    with visiting(browser, origin_of(server), color_scheme=scheme, viewport=size) as visit:
        page = visit.open("/")
        expect(page.get_by_role("link", name=SIGN_IN)).to_be_visible()
        assert grave_findings(page) == []
        assert not visit.scrolls_sideways()


def follow(page: Page, link: str) -> None:
    """Follows a link on the page of the provider, as an attacker's link on another site would be."""
    page.get_by_role("link", name="Continue").evaluate("(link, to) => { link.href = to; }", link)
    page.get_by_role("link", name="Continue").click()
