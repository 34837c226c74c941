"""The list of requests: live, with filters in the address, and in stable pages."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import expect

from tests.e2e.waiting import wait_state
from tests.page.conftest import Open, created

pytestmark = pytest.mark.page

COMPLETE, FAIL = 3, 4


def test_requests_appear_and_end_without_a_reload(visit: Open, api: httpx.Client) -> None:
    page = visit().open("/")
    expect(page.get_by_role("heading", name="Requests")).to_be_visible()
    request_id = created(api, "one-job", {"out": "hello"})
    row = page.get_by_role("row").filter(has_text=request_id)
    expect(row).to_contain_text("one-job")
    expect(row).to_contain_text("Complete")


def test_a_filter_is_in_the_address_and_a_link_shows_it_again(visit: Open, api: httpx.Client) -> None:
    complete = created(api, "one-job", {"out": "hello"})
    failed = created(api, "panics", {})
    wait_state(api, complete, COMPLETE)
    wait_state(api, failed, FAIL)
    page = visit().open("/requests")
    page.get_by_role("button", name="FAIL").click()
    expect(page.get_by_role("row").filter(has_text=failed)).to_be_visible()
    expect(page.get_by_role("row").filter(has_text=complete)).to_have_count(0)
    link = page.url
    assert "state=FAIL" in link
    page.go_back()
    expect(page.get_by_role("row").filter(has_text=complete)).to_be_visible()
    copied = visit()
    copied.open(link.removeprefix(copied.origin))
    expect(copied.page.get_by_role("row").filter(has_text=failed)).to_be_visible()
    expect(copied.page.get_by_role("row").filter(has_text=complete)).to_have_count(0)


def test_the_runner_is_listed(visit: Open) -> None:
    page = visit().open("/")
    page.get_by_role("link", name="Runners").click()
    expect(page.get_by_role("heading", name="Runners")).to_be_visible()
    expect(page.get_by_role("row")).to_have_count(2)
    assert page.url.endswith("/runners")
