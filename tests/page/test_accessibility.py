"""Every view in light and dark, wide and narrow: readable, by keyboard, and without sideways scrolling."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import expect

from tests.e2e.waiting import wait_state
from tests.page.axe import grave_findings
from tests.page.browsers import NARROW, WIDE
from tests.page.conftest import Open, created

pytestmark = pytest.mark.page

COMPLETE, FAIL = 3, 4
VIEWS = ["/requests", "/requests?state=FAIL", "/runners"]


@pytest.fixture(scope="module", autouse=True)
def requests(api: httpx.Client) -> None:
    for request_type, args in (("one-job", {"out": "hello"}), ("panics", {})):
        wait_state(api, created(api, request_type, args), COMPLETE, FAIL)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_no_serious_finding(visit: Open, view: str, width: int, scheme: str) -> None:
    tab = visit(color_scheme=scheme, viewport={"width": width, "height": 800})
    page = tab.open(view)
    expect(page.get_by_role("row").nth(1)).to_be_visible()
    assert grave_findings(page) == []
    assert not tab.scrolls_sideways()


def test_a_view_is_reached_by_keyboard(visit: Open) -> None:
    page = visit().open("/requests")
    link = page.get_by_role("link", name="Runners")
    expect(link).to_be_visible()
    for _ in range(20):
        page.keyboard.press("Tab")
        if link.evaluate("link => link === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Runners")).to_be_visible()
