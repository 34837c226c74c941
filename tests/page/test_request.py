"""An operator starts a request in the page, follows it, and finds out what failed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from spincycle_grpc.state import State
from tests.e2e.processes import ServerProcess
from tests.limits import REQUEST_END
from tests.page.axe import grave_findings
from tests.page.browsers import MILLISECONDS, NARROW, WIDE, visiting
from tests.page.conftest import Open, created, origin_of
from tests.page.fleets import prepare, serving_hosts
from tests.ports import free_port

pytestmark = pytest.mark.page


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("request")
    prepare(directory)
    return directory


@pytest.fixture(scope="module")
def hosts(directory: Path) -> Path:
    return directory / "hosts"


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[ServerProcess]:
    with serving_hosts(directory) as server:
        yield server


def row(page: Page, label: str) -> None:
    """Waits for the row of a job or a sequence."""
    expect(page.get_by_role("row").filter(has_text=label).first).to_be_visible()


def test_a_request_is_started_followed_and_its_failure_found(visit: Open, hosts: Path) -> None:
    gate = hosts / "restart-web2.gate"
    gate.touch()
    (hosts / "drain-web3.gate").touch()
    tab = visit()
    page = tab.open("/start")
    page.get_by_role("link", name="rolling").click()
    page.get_by_label(re.compile("^hosts")).fill(json.dumps(["web1", "web2", "web3"]))
    page.get_by_role("button", name="Plan").click()
    expect(page.get_by_role("heading", name="Plan: 9 jobs")).to_be_visible()
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/requests/*")
    row(page, "host web2")
    expect(page.get_by_role("row").filter(has_text="restart").filter(has_text="Running")).to_have_count(1)
    expect(page.get_by_role("region", name="1 job has failed")).to_have_count(0)
    (hosts / "web2.bad").touch()
    gate.unlink()
    failures = page.get_by_role("region", name="1 job has failed")
    expect(failures).to_contain_text("host web2")
    expect(failures).to_contain_text("the disk is full")
    (hosts / "drain-web3.gate").unlink()
    failures.get_by_role("button", name="Show output").click()
    output = page.get_by_role("log", name="Lines of output")
    expect(output).to_contain_text("web2: the disk is full")
    assert "job=" in page.url
    copied = visit()
    copied.open(page.url.removeprefix(tab.origin))
    expect(copied.page.get_by_role("log", name="Lines of output")).to_contain_text("web2: the disk is full")
    expect(copied.page.get_by_role("complementary", name="Job")).to_contain_text("restart")


@pytest.fixture(scope="module")
def failed(api: httpx.Client, hosts: Path, browser: Browser, server: ServerProcess) -> str:
    """A request that has failed on one host of three."""
    (hosts / "bad1.bad").touch()
    request_id = created(api, "rolling", {"hosts": ["good1", "bad1", "good2"]})
    with visiting(browser, origin_of(server)) as visit:
        page = visit.open(f"/requests/{request_id}")
        expect(page.get_by_role("region", name="1 job has failed")).to_be_visible()
        expect(page.get_by_role("button", name="Retry", exact=True)).to_be_visible()
    return request_id


def test_a_job_says_nothing_of_its_tries_before_they_have_arrived(
    visit: Open, api: httpx.Client, failed: str
) -> None:
    entries = api.get(f"/api/v1/requests/{failed}/log", params={"states": "FAIL"}).json()
    (job_id,) = {entry["jobId"] for entry in entries if entry["state"] == State.FAIL}
    page = visit().page
    held: list[Route] = []
    is_held = True

    def hold(route: Route) -> None:
        if is_held:
            held.append(route)
        else:
            route.continue_()

    page.route("**/watch*", hold)
    page.goto(f"{str(api.base_url).rstrip('/')}/requests/{failed}#job={job_id}")
    panel = page.get_by_role("complementary", name="Job")
    expect(panel).to_contain_text(job_id)
    expect(panel.get_by_role("status")).to_have_text("Loading…")
    expect(panel).not_to_contain_text("has not")
    expect(panel).not_to_contain_text("Pending")
    rows = page.get_by_role("row").filter(has_text="host ")
    expect(rows.first).to_contain_text("Loading…")
    expect(page.get_by_text(re.compile("^(Not run|Stopped|Pending)$"))).to_have_count(0)
    is_held = False
    for route in held:
        route.continue_()
    expect(panel.get_by_role("log", name="Lines of output")).to_contain_text("the disk is full")
    expect(panel.get_by_text("Loading…")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("view", ["", "output", "graph"])
def test_the_views_of_a_request_have_no_serious_finding(
    visit: Open, failed: str, view: str, width: int, scheme: str
) -> None:
    tab = visit(color_scheme=scheme, viewport={"width": width, "height": 800})
    page = tab.open(f"/requests/{failed}")
    if view == "output":
        page.get_by_role("button", name="Show output").click()
        expect(page.get_by_role("log", name="Lines of output")).to_contain_text("the disk is full")
    elif view == "graph":
        page.get_by_role("tab", name="Graph").click()
        expect(page.get_by_role("list", name="9 jobs by state")).to_be_visible()
    else:
        expect(page.get_by_role("region", name="1 job has failed")).to_be_visible()
    assert grave_findings(page) == []
    assert not tab.scrolls_sideways()


def test_an_open_page_survives_the_death_of_its_server(browser: Browser, tmp_path: Path) -> None:
    prepare(tmp_path)
    options = (f"--http=127.0.0.1:{free_port()}",)
    gate = tmp_path / "hosts" / "restart-a.gate"
    gate.touch()
    with serving_hosts(tmp_path, options) as server:
        with httpx.Client(base_url=origin_of(server)) as api:
            request_id = created(api, "rolling", {"hosts": ["a"]})
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{origin_of(server)}/requests/{request_id}")
        expect(page.get_by_role("row").filter(has_text="restart")).to_contain_text("Running")
        server.kill()
        expect(page.get_by_text("Reconnecting")).to_be_visible()
    gate.unlink()
    with serving_hosts(tmp_path, options) as server:
        origin_of(server)
        # The request goes on when the lease of the dead Job Runner has ended.
        progress = page.get_by_text("3 of 3 jobs complete")
        expect(progress).to_be_visible(timeout=REQUEST_END * MILLISECONDS)
        context.close()
