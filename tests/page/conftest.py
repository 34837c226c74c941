"""The browser, and a server with some requests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import httpx
import pytest
from playwright.sync_api import Browser

from tests.e2e.processes import ServerProcess, running
from tests.limits import ANSWER
from tests.page.browsers import Visit, chromium, visiting

Open: TypeAlias = Callable[..., Visit]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The machine's Chromium."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that authenticates nobody. Modules with other needs define their own."""
    directory = tmp_path_factory.mktemp("page")
    with running("server", "--http=127.0.0.1:0", directory=directory) as server:
        yield server


def origin_of(server: ServerProcess) -> str:
    """Returns the origin of the Request Manager."""
    return f"http://{server.address('request-manager', 'http')}"


@pytest.fixture
def visit(browser: Browser, server: ServerProcess) -> Iterator[Open]:
    """Opens a tab for a new user, with the options of `Browser.new_context`."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(visiting(browser, origin_of(server), **options))


@pytest.fixture(scope="module")
def api(server: ServerProcess) -> Iterator[httpx.Client]:
    """A program that calls the API."""
    with httpx.Client(base_url=origin_of(server), timeout=ANSWER) as client:
        yield client


def created(api: httpx.Client, request_type: str, args: dict[str, Any]) -> str:
    """Creates and starts a request, and returns its id."""
    answer = api.post("/api/v1/requests", json={"type": request_type, "args": args})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])
