"""Which Host headers name the server, and which calls of other pages are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from spincycle_server.gateway.errors import HttpError
from spincycle_server.web.browser_calls import BrowserCalls
from spincycle_server.web.hosts import AllowedHosts

HOSTS = AllowedHosts(["spin.example.com", "*.ops.example.com"], lambda: ["From.Certificate."[:-1]])
CALLS = BrowserCalls(HOSTS, ["https://other.example"], "https://spin.example.com")
POWERSHELL = "Mozilla/5.0 (Windows NT; Windows NT 10.0; de-DE) WindowsPowerShell/5.1"
MOZILLA = "Mozilla/5.0 (X11; Linux x86_64)"


def headers(**values: str) -> dict[bytes, bytes]:
    given = {"host": "localhost:1", **values}
    return {name.replace("_", "-").encode(): text.encode() for name, text in given.items()}


def refusal(check: str, method: str, values: dict[str, str], calls: BrowserCalls = CALLS) -> int:
    """Returns the status with which a call is refused; 0 if it is not refused."""
    try:
        if check == "page":
            calls.check_of_page(method, headers(**values), "http")
        else:
            calls.check_other(method, headers(**values))
    except HttpError as error:
        return error.status
    return 0


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("localhost", True), ("localhost:32308", True), ("LOCALHOST.:1", True), ("a.localhost", True),
        ("127.0.0.1:1", True), ("10.1.2.3", True), ("[::1]:32308", True), ("[fe80::1]", True),
        ("spin.example.com", True), ("Spin.Example.COM:443", True), ("a.ops.example.com", True),
        ("from.certificate", True), ("ops.example.com", False), ("a.b.ops.example.com", False),
        ("evil.example", False), ("localhost.evil.example", False), ("127.0.0.1.evil.example", False),
        ("spin.example.com.evil.example:1", False), ("", False), (":1", False), ("[::1", False),
        ("localhost:evil", False), ("a:1:2", False), ("0x7f.1", False),
    ],
)  # fmt: skip
def test_only_own_names_and_addresses_are_allowed(host: str, is_allowed: bool) -> None:
    assert HOSTS.allows(host) == is_allowed
    assert (refusal("page", "GET", {"host": host}) == 421) != is_allowed


OWN = {"origin": "http://localhost:1", "sec_fetch_site": "same-origin", "x_spincycle_page": "1"}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 0),
        ({"sec_fetch_site": ""}, 0),  # A browser without fetch metadata, or a page without TLS.
        ({"origin": ""}, 0),
        ({"origin": "https://spin.example.com", "host": "localhost:1"}, 0),  # Behind a proxy.
        ({"origin": "", "sec_fetch_site": ""}, 403),
        ({"x_spincycle_page": ""}, 403),
        ({"x_spincycle_page": "0"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"origin": "https://other.example"}, 403),  # CORS never lets a page use a cookie.
        ({"origin": "http://localhost:2"}, 403),
        ({"origin": "https://localhost:1"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 421),
    ],
)
def test_only_the_page_changes_something_in_a_session(changes: dict[str, str], status: int) -> None:
    given = {name: text for name, text in {**OWN, **changes}.items() if text}
    for method in ("POST", "PUT", "DELETE", "ODD"):
        assert refusal("page", method, given) == status


@pytest.mark.parametrize(
    ("site", "status"), [("", 0), ("same-origin", 0), ("none", 0), ("same-site", 403), ("cross-site", 403)]
)
def test_only_the_page_reads_in_a_session(site: str, status: int) -> None:
    given = {"sec_fetch_site": site} if site else {}
    assert refusal("page", "GET", given) == status


@pytest.mark.parametrize(
    ("method", "given", "status"),
    [
        ("POST", {"host": "any.example"}, 0),  # curl, a client, another server
        ("GET", {"host": "any.example", "user_agent": "python-httpx/0.28"}, 0),
        ("POST", {"origin": "https://other.example", "sec_fetch_site": "cross-site"}, 0),  # by CORS
        ("POST", {"origin": "https://evil.example", "sec_fetch_site": "cross-site"}, 403),
        ("PUT", {"sec_fetch_site": "same-site"}, 403),
        ("GET", {"sec_fetch_site": "cross-site", "user_agent": MOZILLA}, 0),  # CORS hides the answer.
        ("POST", {"origin": "http://evil.example:1", "host": "evil.example:1"}, 421),  # DNS rebinding
        ("GET", {"host": "evil.example:1", "user_agent": MOZILLA, "accept_language": "en"}, 421),
        ("GET", {"host": "evil.example:1", "sec_fetch_site": "none"}, 421),
        ("GET", {"host": "any.example", "user_agent": POWERSHELL}, 0),
        ("GET", {"host": "localhost:1", "user_agent": MOZILLA, "accept_language": "en"}, 0),
        ("POST", {"origin": "https://elsewhere.example", "host": "any.example"}, 0),  # no sign of a browser
    ],
)
def test_other_calls_are_refused_only_if_a_page_may_have_begun_them(
    method: str, given: dict[str, str], status: int
) -> None:
    assert refusal("other", method, given) == status


def test_every_origin_may_call_if_cors_allows_all() -> None:
    calls = BrowserCalls(HOSTS, ["*"])
    given = {"origin": "https://evil.example", "sec_fetch_site": "cross-site", "host": "any.example"}
    assert refusal("other", "POST", given, calls) == 0
    assert refusal("page", "POST", {**given, "host": "localhost"}, calls) == 403


some_headers = some.dictionaries(
    some.sampled_from(
        ["origin", "sec_fetch_site", "accept_language", "user_agent", "x_spincycle_page", "accept"]
    ),
    some.sampled_from(
        ["", "none", "cross-site", "https://evil.example", "http://evil.example:1", MOZILLA, "1"]
    ),
)


@given(
    values=some_headers,
    method=some.sampled_from(["GET", "POST"]),
    host=some.sampled_from(["localhost", "evil.example"]),
)
def test_only_calls_that_concern_browsers_are_refused(values: dict[str, str], method: str, host: str) -> None:
    """Other calls are not looked at. A call with a cookie always is."""
    if not CALLS.may_concern(headers(**values)):
        assert refusal("other", method, {**values, "host": host}) == 0
    assert CALLS.may_concern(headers(**values, cookie="a=b"))
