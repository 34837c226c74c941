"""Signing in with an API token, and what a user without one sees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.processes import ServerProcess, running
from tests.page.browsers import Visit, visiting
from tests.page.conftest import origin_of
from tests.page.users import new_token, require_tokens, sign_in

pytestmark = pytest.mark.page

NAME = "alice@example.com"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sign-in")
    require_tokens(directory, "dba")
    return directory


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[ServerProcess]:
    with running("server", "--http=127.0.0.1:0", directory=directory) as server:
        yield server


@pytest.fixture(scope="module")
def token(server: ServerProcess, directory: Path) -> str:
    origin_of(server)
    return new_token(directory, NAME, "dba")


@pytest.fixture
def stranger(browser: Browser, server: ServerProcess) -> Iterator[Visit]:
    """A user who has not signed in."""
    with visiting(browser, origin_of(server)) as visit:
        yield visit


def test_a_user_signs_in_with_a_token_and_out_again(stranger: Visit, token: str) -> None:
    page = stranger.open("/runners")
    expect(page.get_by_label("API token")).to_be_visible()
    expect(page.get_by_role("heading", name="Runners")).to_have_count(0)
    sign_in(stranger.page, token)
    expect(page.get_by_role("heading", name="Runners")).to_be_visible()
    expect(page.get_by_text(NAME)).to_be_visible()
    assert token not in page.evaluate(
        "document.cookie + JSON.stringify({...localStorage, ...sessionStorage})"
    )
    assert token not in page.url
    page.reload()
    expect(page.get_by_role("heading", name="Runners")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API token")).to_be_visible()
    page.reload()
    expect(page.get_by_label("API token")).to_be_visible()


def test_a_wrong_token_is_refused_with_a_sentence(stranger: Visit) -> None:
    stranger.open("/")
    sign_in(stranger.page, "spincycle_" + "x" * 43)
    expect(stranger.page.get_by_role("alert")).not_to_be_empty()
    expect(stranger.page.get_by_label("API token")).to_be_visible()
    # The browser itself reports each answer with an error, and the page cannot prevent that.
    assert [fault for fault in stranger.faults if "/web/sign-in" not in fault] == []
    stranger.faults.clear()
