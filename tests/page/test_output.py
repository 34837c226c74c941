"""The output of a job: long lines stay inside its box, are found, linked to and coloured, wrapped or not."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.waiting import eventually, wait_state
from tests.limits import STEP
from tests.page.axe import grave_findings
from tests.page.browsers import NARROW, until
from tests.page.conftest import Open, created

pytestmark = pytest.mark.page

COMPLETE = 3
WORD = "needle"
LONG = "a" * 200 + f"\x1b[31m{WORD}\x1b[0m" + "b" * 94
"""A line of 300 characters without spaces, with a coloured word at its end."""

LINES = [*(f"line {number}" for number in range(1, 200)), LONG, "the last line"]
LONG_NUMBER = 200

KINDS = [
    "\t".join(f"abc{number}" for number in range(40)),
    "漢字" * 100,
    "🙂x" * 100,
    "é" * 300,
    "e\u0301" * 300,
    "a " * 150 + " " * 50 + "b",
    "─│┌" * 100,
]
"""Long lines whose characters are not all as wide as a letter."""


@pytest.fixture(scope="module")
def request_id(api: httpx.Client) -> str:
    """A request whose job writes a long line, and one arg of which is long too."""
    request_id = created(api, "one-job", {"out": "\n".join(LINES)})
    wait_state(api, request_id, COMPLETE)
    return request_id


def job_of(api: httpx.Client, request_id: str) -> str:
    """Returns the id of the only job that does something."""
    chain = api.get(f"/api/v1/requests/{request_id}/job-chain").json()
    [job_id] = [job["id"] for job in chain["jobs"].values() if job["type"] != "noop"]
    return str(job_id)


@pytest.fixture(scope="module")
def job_id(api: httpx.Client, request_id: str) -> str:
    return job_of(api, request_id)


@pytest.fixture(scope="module")
def kinds(api: httpx.Client) -> str:
    """A request whose job writes long lines of all kinds."""
    request_id = created(api, "one-job", {"out": "\n".join([*(KINDS * 5), "the last line"])})
    wait_state(api, request_id, COMPLETE)
    return request_id


def lines(page: Page) -> Locator:
    return page.get_by_role("log", name="Lines of output")


def is_wider_than_its_box(page: Page) -> bool:
    return bool(lines(page).evaluate("box => box.scrollWidth > box.clientWidth"))


def height_of_line(page: Page, number: int) -> float:
    """Returns the height of a line in rows of 20 pixels."""
    line = lines(page).locator(".line").filter(has=page.get_by_role("button", name=f"{number}: link to"))
    box = line.bounding_box()
    assert box is not None
    return box["height"] / 20


def is_inside(page: Page, inner: Locator) -> bool:
    """Whether all of an element can be seen in the box of the output."""
    box, part = lines(page).bounding_box(), inner.bounding_box()
    assert box is not None
    assert part is not None
    return (
        part["x"] >= box["x"]
        and part["x"] + part["width"] <= box["x"] + box["width"]
        and part["y"] >= box["y"]
        and part["y"] + part["height"] <= box["y"] + box["height"]
    )


@pytest.mark.parametrize("width", [NARROW, 1280])
def test_a_long_line_wraps_and_its_word_is_found_linked_and_coloured(
    visit: Open, request_id: str, job_id: str, width: int
) -> None:
    tab = visit(viewport={"width": width, "height": 740})
    page = tab.open(f"/requests/{request_id}#job={job_id}&try=1&line={LONG_NUMBER}")
    expect(lines(page)).to_contain_text("the last line")
    assert not is_wider_than_its_box(page)
    assert not tab.scrolls_sideways()
    expect(lines(page).locator(".is-chosen")).to_contain_text(WORD)
    assert height_of_line(page, LONG_NUMBER) >= 2
    eventually(lambda: is_inside(page, lines(page).locator(".is-chosen .line-number")), STEP)
    expect(lines(page).locator(".ansi-red")).to_have_text(WORD)
    assert grave_findings(page) == []
    page.get_by_role("searchbox", name="Search in the output").fill("line 7")
    expect(page.get_by_text("1 of 11")).to_be_visible()
    page.get_by_role("searchbox", name="Search in the output").fill(WORD)
    mark = lines(page).locator(".is-found mark")
    expect(mark).to_have_text(WORD)
    page.get_by_role("button", name="Next match").click()
    eventually(lambda: is_inside(page, mark), STEP)


def test_without_wrapping_the_box_scrolls_alone_and_the_choice_is_kept(
    visit: Open, request_id: str, job_id: str
) -> None:
    tab = visit(viewport={"width": NARROW, "height": 740})
    page = tab.open(f"/requests/{request_id}#job={job_id}&try=1")
    expect(lines(page)).to_contain_text("the last line")
    wrap = page.get_by_role("button", name="Wrap", exact=True)
    expect(wrap).to_have_attribute("aria-pressed", "true")
    wrap.click()
    for _ in range(2):
        expect(wrap).to_have_attribute("aria-pressed", "false")
        expect(lines(page)).to_contain_text("the last line")  # The end stays in view.
        assert is_wider_than_its_box(page)
        assert not tab.scrolls_sideways()
        assert height_of_line(page, LONG_NUMBER) == 1
        page.get_by_role("searchbox", name="Search in the output").fill(WORD)
        until(page, "() => document.querySelector('.output-text').scrollLeft > 0")
        eventually(lambda: is_inside(page, lines(page).locator(".is-found mark")), STEP)
        page.reload()
    wrap.click()
    expect(lines(page)).to_contain_text("the last line")
    assert not is_wider_than_its_box(page)


@pytest.mark.parametrize("width", [NARROW, 1280])
def test_lines_are_as_high_as_is_computed(visit: Open, api: httpx.Client, kinds: str, width: int) -> None:
    """The space of all lines is as high as the lines are, and the end stays in view."""
    page = visit(viewport={"width": width, "height": 740}).open(f"/requests/{kinds}#job={job_of(api, kinds)}")
    expect(lines(page)).to_contain_text("the last line")
    until(page, "() => { const box = document.querySelector('.output-text');"
                " return box.scrollHeight - box.scrollTop - box.clientHeight < 1; }")  # fmt: skip
    places = lines(page).evaluate(
        """box => {
          const space = box.querySelector(".output-space").getBoundingClientRect();
          const rows = box.querySelector(".output-rows").getBoundingClientRect();
          return [space.bottom, rows.bottom];
        }"""
    )
    assert places[0] == pytest.approx(places[1], abs=1)


def test_the_whole_request_fits_a_phone(visit: Open, request_id: str) -> None:
    tab = visit(viewport={"width": NARROW, "height": 740})
    page = tab.open(f"/requests/{request_id}")
    expect(page.get_by_role("heading", name="one-job")).to_be_visible()
    expect(page.get_by_text("1 of 1 jobs complete")).to_be_visible()
    assert not tab.scrolls_sideways()
