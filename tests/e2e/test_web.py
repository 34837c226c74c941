"""The page of running servers: its files, sign-in by token and at an OIDC provider, and attacks on both."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias
from urllib.parse import urlsplit

import httpx
import pytest

from tests.commands.in_process import spincycle
from tests.databases import SharedServers, migrate
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually
from tests.identity.oidc_providers import chosen_provider
from tests.limits import ANSWER

INDEX = "<!doctype html><title>Spin Cycle</title>"
PAGE = {"x-spincycle-page": "1", "sec-fetch-site": "same-origin"}
WithTokens: TypeAlias = tuple[ServerProcess, str, Path]
PROGRAM = ("tests.e2e.page_server",)
ALICE = {"signedIn": True, "user": "alice", "roles": ["dba"], "isAdmin": True}


@contextlib.contextmanager
def serving(directory: Path, settings: Mapping[str, str], **environment: str) -> Iterator[ServerProcess]:
    """Runs a server with a built page."""
    page = directory / "page"
    if not page.exists():
        (page / "assets").mkdir(parents=True)
        (page / "index.html").write_text(INDEX)
        (page / "assets" / "app-1.js").write_text("let page")
    with running(
        "server", "--http=127.0.0.1:0", directory=directory, program=PROGRAM,
        environment={"SPINCYCLE_TEST_PAGE": str(page), **settings, **environment},
    ) as server:  # fmt: skip
        yield server


class Browser:
    """A browser: it keeps cookies, and sends what browsers send."""

    def __init__(self, server: ServerProcess) -> None:
        self.origin = f"http://{server.address('request-manager', 'http')}"
        self.http = httpx.Client(timeout=ANSWER, headers={"user-agent": "Mozilla/5.0"})

    def call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] = MappingProxyType({}),
        body: object = None,
    ) -> httpx.Response:
        """Calls the server as the page does, with changed headers."""
        sent = {**PAGE, "origin": self.origin, **headers}
        return self.http.request(method, f"{self.origin}{path}", json=body, headers=sent)

    def session(self) -> dict[str, object]:
        found: dict[str, object] = self.call("GET", "/web/session").json()
        return found

    def sign_in(self, token: str) -> httpx.Response:
        return self.call("POST", "/web/sign-in", {"authorization": f"Bearer {token}"})


Open: TypeAlias = Callable[[ServerProcess], Browser]


@pytest.fixture
def browser_of() -> Iterator[Open]:
    with contextlib.ExitStack() as stack:

        def opened(server: ServerProcess) -> Browser:
            browser = Browser(server)
            stack.callback(browser.http.close)
            return browser

        yield opened


def new_token(directory: Path) -> str:
    url = f"--db=sqlite:///{directory}/spincycle.db"
    done = spincycle(directory, "token", "create", "alice", url, "--role=dba")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def with_tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WithTokens]:
    """A server whose users have API tokens, and a token."""
    directory = tmp_path_factory.mktemp("web")
    config = directory / "config.yaml"
    config.write_text(json.dumps({"auth": {"admin_roles": "dba"}, "server": {"hosts": "spin.example.com"}}))
    (directory / "config").mkdir()
    config.rename(directory / "config" / "development.yaml")
    settings = {"SPINCYCLE_AUTH_METHODS": "token", "SPINCYCLE_SERVER_CORS_ORIGINS": "https://ops.example.com"}
    with serving(directory, settings) as server:
        server.address("request-manager", "http")
        yield server, new_token(directory), directory


def test_the_page_is_served_beside_the_api(with_tokens: WithTokens, browser_of: Open) -> None:
    browser = browser_of(with_tokens[0])
    for path in ("/", "/requests/abc?tab=log", "/runners", "/index.html"):
        answer = browser.call("GET", path)
        assert (answer.status_code, answer.text) == (200, INDEX), path
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-cache"
    assert "immutable" in browser.call("GET", "/assets/app-1.js").headers["cache-control"]
    assert browser.call("HEAD", "/").text == ""
    assert browser.call("POST", "/").status_code == 405
    assert browser.call("GET", "/version").text == "1.0.12"
    assert browser.call("GET", "/openapi.json").json()["openapi"].startswith("3.1")
    assert browser.call("GET", "/api/v1/requests").status_code == 401
    for path in ("/nosuch", "/web/nosuch", "/assets/../../etc/passwd"):
        assert browser.call("GET", path).status_code == 404
    assert browser.call("GET", "/", {"host": "evil.example"}).status_code == 421
    assert browser.call("GET", "/", {"host": "spin.example.com"}).status_code == 200


def test_a_session_of_a_token_may_do_what_the_token_may(with_tokens: WithTokens, browser_of: Open) -> None:
    server, token, _ = with_tokens
    browser = browser_of(server)
    assert browser.session() | {"signedIn": False, "signIn": ["token"], "user": ""} == browser.session()
    assert browser.sign_in("spincycle_" + "x" * 43).status_code == 401
    signed_in = browser.sign_in(token)
    assert signed_in.status_code == 204
    assert token not in str(signed_in.headers)
    shown = browser.session()
    assert ALICE.items() <= shown.items()
    assert isinstance(shown["expiresAt"], int)
    listed = browser.call("GET", "/api/v1/requests")
    assert (listed.status_code, listed.headers["x-content-type-options"]) == (200, "nosniff")
    assert browser.call("GET", "/api/v1/configuration").status_code == 200
    body = {"type": "one-job", "args": {"out": "x"}}
    created = browser.call("POST", "/api/v1/requests", body=body)
    assert (created.status_code, created.json()["user"]) == (201, "alice")
    path = f"/api/v1/requests/{created.json()['id']}/watch"
    watched = browser.call("GET", path, {"accept": "text/event-stream"})
    assert '"snapshotComplete":true' in watched.text
    events = browser.call("GET", "/api/v1/audit?user=alice").json()["events"]
    assert [event["operation"] for event in events] == ["RequestManager.Create", "Web.SignIn"]
    assert browser.call("POST", "/web/sign-out").status_code == 204
    assert browser.call("GET", "/api/v1/requests").status_code == 401
    assert token not in server.log()


def test_other_pages_neither_use_a_session_nor_begin_one(with_tokens: WithTokens, browser_of: Open) -> None:
    server, token, _ = with_tokens
    browser = browser_of(server)
    login = {"authorization": f"Bearer {token}"}
    for headers in (
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"x-spincycle-page": "0"},
    ):
        assert browser.call("POST", "/web/sign-in", {**login, **headers}).status_code == 403
    assert browser.sign_in(token).status_code == 204
    body = {"type": "one-job", "args": {"out": "x"}}
    attacks: list[tuple[str, dict[str, str], int]] = [
        ("POST", {"x-spincycle-page": "0"}, 403),
        ("POST", {"origin": "https://evil.example"}, 403),
        ("POST", {"origin": "https://ops.example.com", "sec-fetch-site": "cross-site"}, 403),
        ("POST", {"sec-fetch-site": "same-site"}, 403),
        ("GET", {"sec-fetch-site": "cross-site"}, 403),
        ("GET", {"host": "evil.example"}, 421),
    ]
    before = len(browser.call("GET", "/api/v1/requests").json())
    attacks.append(("POST", {"authorization": "Basic eA==", "x-spincycle-page": "0"}, 403))
    for method, headers, status in attacks:
        refused = browser.call(method, "/api/v1/requests", headers, body)
        assert refused.status_code == status, headers
        reason = {403: "CROSS_SITE_CALL", 421: "HOST_NOT_ALLOWED"}[status]
        assert refused.headers["x-spincycle-reason"] == reason
    assert len(browser.call("GET", "/api/v1/requests").json()) == before
    # A token in the header is no credential that the browser adds by itself.
    by_cors = {**login, "origin": "https://ops.example.com", "host": "any.example"}
    answer = browser.call("GET", "/api/v1/requests", by_cors)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://ops.example.com"
    assert "access-control-allow-credentials" not in answer.headers


def test_a_revoked_token_ends_its_sessions_and_streams(with_tokens: WithTokens, browser_of: Open) -> None:
    server, _, directory = with_tokens
    url = f"--db=sqlite:///{directory}/spincycle.db"
    token = spincycle(directory, "token", "create", "brief", url).stdout.strip()
    browser = browser_of(server)
    assert browser.sign_in(token).status_code == 204
    headers = {"accept": "text/event-stream", "sec-fetch-site": "same-origin"}
    with browser.http.stream("GET", f"{browser.origin}/api/v1/watch", headers=headers) as stream:
        assert stream.status_code == 200
        assert spincycle(directory, "token", "revoke", "brief", url).returncode == 0
        assert "CREDENTIALS_ENDED" in "".join(stream.iter_text())
    assert browser.call("GET", "/api/v1/requests").status_code == 401
    assert browser.session()["signedIn"] is False


def test_a_server_without_authentication_needs_no_sign_in(tmp_path: Path, browser_of: Open) -> None:
    with running(
        "server", "--http=127.0.0.1:0", directory=tmp_path, program=PROGRAM,
        environment={"SPINCYCLE_TEST_PAGE": str(tmp_path / "not-built")},
    ) as server:  # fmt: skip
        browser = browser_of(server)
        shown = browser.session()
        assert (shown["authentication"], shown["signIn"], shown["isAdmin"]) == (False, [], True)
        missing = browser.call("GET", "/")
        assert (missing.status_code, "docs/web.md" in missing.text) == (404, True)
        body = {"type": "one-job", "args": {"out": "x"}}
        calls: list[tuple[dict[str, str], int]] = [
            ({}, 201),
            ({"origin": "https://evil.example", "sec-fetch-site": "cross-site"}, 403),
            ({"origin": "http://evil.example", "host": "evil.example"}, 421),
        ]
        for headers, status in calls:
            answer = browser.call("POST", "/api/v1/requests", headers, body)
            assert answer.status_code == status
        plain = httpx.post(f"{browser.origin}/api/v1/requests", json=body,
                           headers={"host": "rm.internal"}, timeout=ANSWER)  # fmt: skip
        assert plain.status_code == 201


def test_a_server_without_page_has_none_of_its_paths(tmp_path: Path, browser_of: Open) -> None:
    with running(
        "server", "--http=127.0.0.1:0", directory=tmp_path, environment={"SPINCYCLE_SERVER_WEB": "false"}
    ) as server:
        browser = browser_of(server)
        for path in ("/", "/web/session", "/requests/abc", "/web/sign-in/oidc"):
            assert browser.call("GET", path).status_code == 404


def test_users_sign_in_at_an_oidc_provider_at_several_servers(
    database_servers: SharedServers, tmp_path: Path, browser_of: Open
) -> None:
    url = database_servers.url("postgresql", tmp_path)
    migrate(url)
    with chosen_provider() as provider, contextlib.ExitStack() as stack:
        settings = {
            "SPINCYCLE_AUTH_METHODS": "oidc",
            "SPINCYCLE_AUTH_OIDC_ISSUER": provider.issuer,
            "SPINCYCLE_AUTH_OIDC_AUDIENCE": "spincycle",
            "SPINCYCLE_DATABASE_URL": url,
        }
        servers = [stack.enter_context(serving(tmp_path, settings)) for _ in range(2)]
        first, second = (browser_of(server) for server in servers)
        eventually(lambda: first.call("GET", "/web/sign-in/oidc").status_code == 303)
        eventually(lambda: second.call("GET", "/web/sign-in/oidc").status_code == 303)
        started = first.call("GET", "/web/sign-in/oidc?return=/runners")
        assert started.headers["location"].startswith(f"{provider.issuer}/authorize?")
        assert first.session()["signIn"] == ["oidc"]
        back = urlsplit(provider.sign_in(started.headers["location"]))
        provider.token_changes = {"sub": "alice", "roles": ["dba"]}
        callback = f"{back.path}?{back.query}"
        second.http.cookies = first.http.cookies  # A balancer may send the browser to any server.
        done = second.call("GET", callback, {"sec-fetch-site": "cross-site", "origin": "null"})
        assert (done.status_code, done.headers["location"]) == (303, "/runners")
        first.http.cookies = second.http.cookies
        for browser in (first, second):
            assert browser.session()["user"] == "alice"
            assert browser.call("GET", "/api/v1/caller").json()["authMethod"] == "oidc"
        replayed = second.call("GET", callback, {"sec-fetch-site": "cross-site"})
        assert (replayed.status_code, replayed.headers["x-spincycle-reason"]) == (400, "SIGN_IN_EXPIRED")
        assert servers[0].terminate() == 0
        third = browser_of(stack.enter_context(serving(tmp_path, settings)))
        third.http.cookies = second.http.cookies
        eventually(lambda: third.session()["user"] == "alice")
        code = back.query.partition("code=")[2].partition("&")[0]
        for server in servers:
            for secret in (code, provider.forms[0][0]["code_verifier"]):
                assert secret not in server.log()
