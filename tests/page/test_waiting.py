"""What requests wait for: locks with their holders, and approvals with those who may decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.processes import ServerProcess
from tests.e2e.waiting import wait_state
from tests.limits import ANSWER
from tests.page.axe import grave_findings
from tests.page.browsers import NARROW, WIDE, Visit, visiting
from tests.page.conftest import created, origin_of
from tests.page.fleets import prepare, serving_hosts
from tests.page.users import new_token, require_tokens, sign_in

pytestmark = pytest.mark.page

RUNNING, COMPLETE = 2, 3
GIVEN = [{"expected": "host", "given": "host"}]
SPECS = {
    "sequences": {
        "upgrade": {
            "request": True,
            "limits": [{"key": "cluster/{cluster}", "max": 1}],
            "args": {"required": [{"name": "cluster"}, {"name": "host"}]},
            "nodes": {"drain": {"category": "job", "type": "drain", "args": GIVEN}},
        },
        "upgrade-now": {
            "request": True,
            "limits": [{"key": "cluster/{cluster}", "max": 1, "policy": "replace"}],
            "args": {"required": [{"name": "cluster"}, {"name": "host"}]},
            "nodes": {"drain": {"category": "job", "type": "drain", "args": GIVEN}},
        },
        "roll": {
            "request": True,
            "args": {"required": [{"name": "hosts"}]},
            "nodes": {"each": {"category": "sequence", "type": "one-host", "each": ["hosts:host"]}},
        },
        "one-host": {
            "limits": [{"key": "host/{host}", "max": 1}],
            "args": {"required": [{"name": "host"}]},
            "nodes": {"drain": {"category": "job", "type": "drain", "args": GIVEN}},
        },
        "stop-host": {
            "request": True,
            "args": {"required": [{"name": "host"}]},
            "nodes": {
                "permit": {
                    "category": "approval", "roles": ["dba"], "message": "Stop {host}?",
                    "args": [{"expected": "host"}],
                },
            },
        },
    }
}  # fmt: skip

Sign: TypeAlias = Callable[..., Visit]


@dataclass
class Site:
    """A server with two users who may do everything, and its hosts."""

    origin: str
    hosts: Path
    alice: str
    bob: httpx.Client

    def upgrade(self, cluster: str, host: str) -> str:
        """Creates a request that runs until the gate of the host is opened."""
        (self.hosts / f"drain-{host}.gate").touch()
        return created(self.bob, "upgrade", {"cluster": cluster, "host": host})

    def open_gate(self, host: str) -> None:
        (self.hosts / f"drain-{host}.gate").unlink()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("waiting")
    prepare(directory, SPECS)
    require_tokens(directory, "boss")
    return directory


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[ServerProcess]:
    with serving_hosts(directory) as server:
        yield server


@pytest.fixture(scope="module")
def site(server: ServerProcess, directory: Path) -> Iterator[Site]:
    origin = origin_of(server)

    alice, bob_token = (new_token(directory, user, "boss") for user in ("alice", "bob"))
    headers = {"Authorization": f"Bearer {bob_token}"}
    with httpx.Client(base_url=origin, timeout=ANSWER, headers=headers) as bob:
        yield Site(origin, directory / "hosts", alice, bob)


@pytest.fixture
def sign(browser: Browser, site: Site) -> Iterator[Sign]:
    """Opens a path in a new tab, in which alice signs in."""
    opened = []

    def sign(path: str, **options: object) -> Visit:
        context = visiting(browser, site.origin, **options)
        visit = context.__enter__()
        opened.append(context)
        page = visit.open(path)
        sign_in(page, site.alice)
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        return visit

    yield sign
    for context in opened:
        context.__exit__(None, None, None)


def limit(page: Page, key: str) -> Locator:
    return page.get_by_role("article").filter(has=page.get_by_role("heading", name=key))


def test_holders_and_waiting_requests_of_a_lock_are_seen_and_linked(site: Site, sign: Sign) -> None:
    first, second, other = (site.upgrade(*one) for one in (("c1", "a"), ("c1", "b"), ("c2", "c")))
    wait_state(site.bob, first, RUNNING)
    wait_state(site.bob, other, RUNNING)
    page = sign("/waiting").page
    expect(limit(page, "cluster/c1")).to_contain_text("1 of 1 held, 1 waits")
    expect(limit(page, "cluster/c2")).to_contain_text("1 of 1 held")
    claims = limit(page, "cluster/c1").get_by_role("listitem")
    expect(claims).to_have_count(2)
    expect(claims.nth(0)).to_contain_text("holds it")
    expect(claims.nth(0)).to_contain_text(first)
    expect(claims.nth(0)).to_contain_text("created by bob")
    expect(claims.nth(1)).to_contain_text("waits")
    claims.nth(1).get_by_role("link", name="upgrade").click()
    page.wait_for_url(f"**/requests/{second}")
    waits = page.get_by_role("region", name="Waits for the limit cluster/c1")
    expect(waits).to_contain_text("has held it for")
    expect(waits).to_contain_text(first)
    waits.get_by_role("link", name="upgrade").click()
    page.wait_for_url(f"**/requests/{first}")
    expect(page.get_by_text("Holds the limit cluster/c1.")).to_be_visible()
    page.get_by_role("link", name="cluster/c1").click()
    expect(limit(page, "cluster/c1")).to_be_visible()
    expect(limit(page, "cluster/c2")).to_have_count(0)
    site.open_gate("a")
    expect(limit(page, "cluster/c1")).not_to_contain_text("waits")
    expect(limit(page, "cluster/c1").get_by_role("listitem")).to_contain_text(second)
    site.open_gate("b")
    wait_state(site.bob, second, COMPLETE)
    expect(page.get_by_text("No request that you may view holds or waits for cluster/c1.")).to_be_visible()
    page.get_by_role("link", name="Show all keys").click()
    page.get_by_role("searchbox", name="Whole key of a limit").fill("cluster/c2")
    page.keyboard.press("Enter")
    expect(page.get_by_role("article")).to_have_count(1)
    site.open_gate("c")
    wait_state(site.bob, other, COMPLETE)
    page.get_by_role("link", name="Waiting").click()
    expect(page.get_by_text("No request holds a limit or waits for one.")).to_be_visible()


def test_a_request_that_another_one_replaced_says_so(site: Site, sign: Sign) -> None:
    first = site.upgrade("c3", "s")
    wait_state(site.bob, first, RUNNING)
    page = sign(f"/requests/{first}").page
    second = created(site.bob, "upgrade-now", {"cluster": "c3", "host": "t"})
    wait_state(site.bob, second, COMPLETE)
    fact = page.locator("dl.facts div").filter(has_text="Stop reason")
    expect(fact.get_by_role("definition")).to_have_text(
        f"request {second} replaced it at the limit cluster/c3"
    )
    site.open_gate("s")


def test_the_keys_of_sequences_are_seen_with_their_paths(site: Site, sign: Sign) -> None:
    for host in "pqr":
        (site.hosts / f"drain-{host}.gate").touch()
    first, second = (created(site.bob, "roll", {"hosts": hosts}) for hosts in (["p", "q"], ["q", "r"]))
    wait_state(site.bob, second, RUNNING)
    page = sign(f"/requests/{second}").page
    sequences = page.get_by_role("region", name="Limits of sequences").get_by_role("listitem")
    expect(sequences).to_have_count(2)
    expect(sequences.nth(0)).to_contain_text("host q waits for host/q")
    expect(sequences.nth(1)).to_contain_text("host r holds host/r")
    assert grave_findings(page) == []
    sequences.nth(0).get_by_role("link", name="host/q").click()
    claims = limit(page, "host/q").get_by_role("listitem")
    expect(claims.nth(0)).to_contain_text(f"roll host q {first}")
    expect(claims.nth(1)).to_contain_text(f"roll host q {second}")
    for host in "pqr":
        site.open_gate(host)
    for request_id in (first, second):
        wait_state(site.bob, request_id, COMPLETE)
    expect(page.get_by_text("No request that you may view holds or waits for host/q.")).to_be_visible()
    page.goto(f"{site.origin}/start/roll")
    page.get_by_role("textbox", name="hosts").fill('["p", "q"]')
    page.get_by_role("button", name="Plan").click()
    expect(page.get_by_role("region", name="Jobs of the plan")).to_contain_text("at most 1 with host/p")


def test_requests_that_wait_for_an_approval_are_found_from_the_list(site: Site, sign: Sign) -> None:
    page = sign("/waiting").page
    expect(page.get_by_text("No request waits for an approval.")).to_be_visible()
    request_id = created(site.bob, "stop-host", {"host": "web1"})
    page.get_by_role("link", name="Requests").click()
    page.get_by_role("link", name="Waiting for approval 1").click()
    row = page.get_by_role("region", name="Table of approvals").get_by_role("row").nth(1)
    expect(row).to_contain_text("Stop web1?")
    expect(row).to_contain_text("1 approval by dba")
    expect(row).to_contain_text("bob")
    page.get_by_role("button", name="For me 1").click()
    row.get_by_role("link", name="stop-host").click()
    page.wait_for_url(f"**/requests/{request_id}")
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("dialog").get_by_role("button", name="Approve").click()
    wait_state(site.bob, request_id, COMPLETE)
    page.get_by_role("link", name="Waiting").click()
    expect(page.get_by_text("No request waits for an approval.")).to_be_visible()


@pytest.fixture(scope="module")
def crowd(site: Site) -> Iterator[str]:
    """Many requests that wait for a long key, and one for an approval. The id of the last of the first."""
    cluster = "a-cluster-with-a-name-that-is-longer-than-any-telephone-is-wide"
    ids = [site.upgrade(cluster, f"h{number}") for number in range(14)]
    asks = created(site.bob, "stop-host", {"host": "a-host.with-a-very-long-name.example.com"})
    wait_state(site.bob, ids[0], RUNNING)
    yield ids[-1]
    for request_id in (*reversed(ids), asks):
        site.bob.put(f"/api/v1/requests/{request_id}/stop")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_the_views_of_waiting_have_no_serious_finding(
    site: Site, sign: Sign, crowd: str, width: int, scheme: str
) -> None:
    tab = sign("/waiting", color_scheme=scheme, viewport={"width": width, "height": 800})
    page = tab.page
    expect(page.get_by_role("article")).to_contain_text("1 of 1 held, 13 wait")
    expect(page.get_by_role("article").get_by_role("listitem")).to_have_count(10)
    page.get_by_role("button", name="Show 4 more").click()
    expect(page.get_by_role("article").get_by_role("listitem")).to_have_count(14)
    expect(page.get_by_role("region", name="Table of approvals")).to_be_visible()
    assert grave_findings(page) == []
    assert not tab.scrolls_sideways()
    tab.open(f"/requests/{crowd}")
    expect(page.get_by_role("region", name="Waits for the limit")).to_contain_text("Show all 13")
    assert grave_findings(page) == []
    assert not tab.scrolls_sideways()
