"""The view of the server shows administrators where notifications went, and sends them again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.e2e.processes import ServerProcess, running
from tests.e2e.receiver import Receiver, receiving
from tests.page.axe import grave_findings
from tests.page.browsers import NARROW
from tests.page.conftest import Open, created

pytestmark = pytest.mark.page

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[ServerProcess]:
    """A server with a target."""
    directory: Path = tmp_path_factory.mktemp("notifications")
    (directory / "secret").write_text(SECRET)
    target = {"url": receiver.url, "secret_file": "secret", "events": ["failed", "completed"]}
    config = {"notifications": {"allowed_hosts": ["127.0.0.1"], "targets": {"ops": target}}}
    (directory / "config.yaml").write_text(json.dumps(config))
    with running("server", "config.yaml", "--http=127.0.0.1:0", directory=directory) as server:
        yield server


def test_an_administrator_sees_notifications_tests_a_target_and_sends_one_again(
    visit: Open, api: httpx.Client, receiver: Receiver
) -> None:
    receiver.answers = [(410, {})]
    created(api, "one-job", {"out": "x"})
    tab = visit()
    page = tab.open("/server")
    table = page.get_by_role("region", name="Table of notifications")
    row = table.get_by_role("row").filter(has_text="completed")
    expect(row).to_contain_text("given up")
    expect(row).to_contain_text("status 410")
    row.get_by_role("button", name="Send again").click()
    expect(page.get_by_text("The event is sent to ops again.")).to_be_visible()
    expect(row).to_contain_text("delivered")
    row.get_by_role("link", name="one-job").click()
    expect(page.get_by_role("heading", name="one-job")).to_be_visible()
    page.go_back()
    page.get_by_role("button", name="Test ops").click()
    expect(table.get_by_role("row").filter(has_text="test")).to_contain_text("delivered")
    page.set_viewport_size({"width": NARROW, "height": 740})
    assert not tab.scrolls_sideways()
    assert grave_findings(page) == []
    ids = [content["id"] for content in receiver.contents]
    assert len(ids) == 3
    assert ids[0] == ids[1]
