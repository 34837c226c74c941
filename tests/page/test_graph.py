"""The graph: it opens late, draws only what is visible, and works by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.processes import ServerProcess
from tests.e2e.waiting import wait_state
from tests.page import panning
from tests.page.browsers import until
from tests.page.conftest import Open, created
from tests.page.fleets import prepare, serving_hosts

pytestmark = pytest.mark.page

COMPLETE, FAIL = 3, 4
MANY = [f"host-{number:05d}" for number in range(10_000)]
MOST_DRAWN = 2_000
"""More readable items than this never fit in a window."""

MOST_AROUND = 10
"""The boxes around all hosts."""

PAN = 2.0
"""How long a pan takes, in seconds. Its length says nothing about the result."""

MOST_TIMES = 10
"""A frame of 10,000 hosts may cost so many times a frame of five. It costs a few times as much."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("graph")
    prepare(directory)
    return directory


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[ServerProcess]:
    with serving_hosts(directory) as server:
        yield server


@pytest.fixture(scope="module")
def small(api: httpx.Client, directory: Path) -> str:
    """A request that has failed on one host of five."""
    (directory / "hosts" / "web4.bad").touch()
    request_id = created(api, "rolling", {"hosts": [f"web{number}" for number in range(1, 6)]})
    wait_state(api, request_id, FAIL)
    return request_id


@pytest.fixture(scope="module")
def large(api: httpx.Client) -> str:
    """A request over 10,000 hosts, with 40,006 jobs."""
    request_id = created(api, "fleet", {"hosts": MANY})
    assert wait_state(api, f"{request_id}?view=BASIC", COMPLETE)["totalJobs"] == 40_006
    return request_id


def open_graph(page: Page) -> None:
    """Opens the tab of the graph, and keeps what its frames report."""
    page.evaluate(
        """() => {
          window.drawnFrames = [];
          addEventListener("spincycle-drawn", (event) => window.drawnFrames.push(event.detail));
        }"""
    )
    page.get_by_role("tab", name="Graph").click()
    until(page, "window.drawnFrames.length > 0")


def next_frame(page: Page) -> dict[str, Any]:
    """Waits until no more frames come, and returns what the last one has drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    drawn: dict[str, Any] = page.evaluate("window.drawnFrames.at(-1)")
    return drawn


def said(page: Page) -> Any:
    return page.locator(".graph-said")


def test_the_graph_loads_only_when_it_is_opened(visit: Open, small: str) -> None:
    tab = visit()
    scripts: list[str] = []
    tab.page.on("request", lambda request: scripts.append(request.url))
    page = tab.open(f"/requests/{small}")
    expect(page.get_by_role("region", name="1 job has failed")).to_be_visible()
    assert not [url for url in scripts if "/graph-" in url]
    open_graph(page)
    assert [url for url in scripts if "/graph-" in url]
    legend = page.get_by_role("list", name="15 jobs by state")
    expect(legend).to_contain_text("Failed 1")
    expect(legend).to_contain_text("Complete 12")
    drawn = next_frame(page)
    assert drawn["items"] + drawn["specks"] >= 15 + 5  # All jobs, and the boxes of the hosts.


def test_a_host_is_found_and_its_job_shown_by_keyboard(visit: Open, small: str) -> None:
    page = visit().open(f"/requests/{small}")
    open_graph(page)
    page.get_by_role("searchbox", name="Find a job or a host").fill("web4")
    page.keyboard.press("Enter")
    expect(said(page)).to_contain_text("Sequence host web4, Failed, 3 jobs")
    page.get_by_role("application", name="Job chain").focus()
    page.keyboard.press("Enter")
    expect(said(page)).to_contain_text("Job drain")
    page.keyboard.press("ArrowRight")
    expect(said(page)).to_contain_text("Job restart")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    expect(said(page)).to_contain_text("Sequence host web4")
    page.keyboard.press("Space")
    expect(said(page)).to_contain_text("Press Enter to open it")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary", name="Job")).to_contain_text("drain")


def test_a_click_on_a_job_shows_it_and_the_wheel_zooms(visit: Open, small: str) -> None:
    page = visit().open(f"/requests/{small}")
    open_graph(page)
    page.get_by_role("searchbox", name="Find a job or a host").fill("verify")
    page.keyboard.press("Enter")
    expect(said(page)).to_contain_text("Job verify")
    canvas = page.get_by_role("application", name="Job chain")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    before = page.evaluate("window.drawnFrames.length")
    page.mouse.move(*middle)
    page.mouse.wheel(0, -240)
    until(page, "before => window.drawnFrames.length > before", before)
    page.get_by_role("button", name="Show all").click()
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] - 40, middle[1] - 20, steps=4)
    page.mouse.up()
    expect(said(page)).to_contain_text("Job verify")  # Dragging selects nothing else.
    assert next_frame(page)["items"] + next_frame(page)["specks"] >= 15


def test_ten_thousand_hosts_are_drawn_within_bounds(visit: Open, large: str) -> None:
    page = visit().open(f"/requests/{large}")
    open_graph(page)
    expect(page.get_by_role("list", name="20,000 jobs by state")).to_contain_text("Complete 20,000")
    overview = next_frame(page)
    assert overview["specks"] == len(MANY)
    before = page.evaluate("window.drawnFrames.length")
    page.get_by_role("button", name="Open all").click()
    until(page, "before => window.drawnFrames.length > before", before)  # All is opened in slices.
    page.get_by_role("searchbox", name="Find a job or a host").fill(MANY[7_777])
    expect(page.get_by_text("1 found")).to_be_visible()
    page.keyboard.press("Enter")
    expect(said(page)).to_contain_text(f"host {MANY[7_777]}, Complete, 2 jobs")
    canvas = page.get_by_role("application", name="Job chain")
    canvas.focus()
    for key in ("Shift+ArrowRight", "Shift+ArrowDown", "+", "-", "-", "Shift+ArrowLeft"):
        page.keyboard.press(key)
        drawn = next_frame(page)
        assert 0 < drawn["items"] + drawn["specks"] <= MOST_DRAWN
        assert drawn["edges"] <= MOST_DRAWN
    page.get_by_role("button", name="Close all").click()
    page.keyboard.press("0")
    until(page, "count => window.drawnFrames.at(-1).specks === count", len(MANY))


def test_panning_costs_no_more_in_a_large_graph_and_every_frame_is_drawn(
    visit: Open, small: str, large: str
) -> None:
    page = visit().open(f"/requests/{small}")
    panning.open_graph(page)
    few = panning.pan(page, panning.MainThread(page), PAN)
    page = visit().open(f"/requests/{large}")
    panning.open_graph(page)
    thread = panning.MainThread(page)
    overview = panning.pan(page, thread, PAN)
    assert overview.most <= len(MANY) + MOST_AROUND
    page.get_by_role("button", name="Open all").click()
    page.get_by_role("searchbox", name="Find a job or a host").fill(MANY[5_000])
    page.keyboard.press("Enter")
    expect(said(page)).to_contain_text(MANY[5_000])
    many = panning.pan(page, thread, PAN)
    assert many.most <= MOST_DRAWN
    for found in (overview, many):
        # The first step is drawn in the frame after it, and the last one after the end.
        assert len(found.drawn) >= len(found.intervals) - 2
        # CPU time, because frames per second depend on what else the machine does.
        assert found.cpu <= MOST_TIMES * few.cpu


def test_ten_thousand_hosts_in_the_table_are_few_elements(visit: Open, large: str) -> None:
    page = visit().open(f"/requests/{large}")
    expect(page.get_by_text("20,000").first).to_be_visible()
    page.get_by_role("searchbox").first.fill(MANY[1234])
    expect(page.get_by_role("row").filter(has_text=MANY[1234]).first).to_be_visible()
    assert page.get_by_role("row").count() < 200
    assert page.locator("*").count() < 3_000
