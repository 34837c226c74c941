"""A real Chromium, and what it must never do: show dialogs, call other hosts, or report errors."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, expect, sync_playwright

from spincycle_server.web.page_files import PageFiles
from tests.e2e.waiting import eventually
from tests.limits import STEP

NARROW = 360
"""The width of a small phone in CSS pixels."""

WIDE = 1280
"""The width of a laptop's window in CSS pixels."""

MILLISECONDS = 1000

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Runs the machine's Chromium. Only loopback addresses resolve in it, so nothing leaves the machine."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        _missing("Chromium is not installed: on Debian, run apt-get install chromium")
    if not PageFiles().is_built:
        _missing("the page is not built: run make page")
    expect.set_options(timeout=STEP * MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE 127.0.0.2"],
        )
        try:
            yield browser
        finally:
            browser.close()


def _missing(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass
class Visit:
    """One user in front of the page.

    Attributes:
        page: The tab.
        origin: The origin of the server.
        faults: Dialogs, exceptions, errors on the console, and calls of other hosts.
        others: Origins that the tab may visit too, such as that of a provider.
        refused: Paths that may be answered with an error. The browser reports it when it likes to.
    """

    page: Page
    origin: str
    faults: list[str] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(STEP * MILLISECONDS)
        self.page.on("dialog", self._dialog)
        self.page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        self.page.on("console", self._console)
        self.page.on("request", self._request)

    def open(self, path: str) -> Page:
        """Loads a path of the server."""
        self.page.goto(f"{self.origin}{path}")
        return self.page

    def scrolls_sideways(self) -> bool:
        """Whether the whole page is wider than the window."""
        return bool(
            self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        )

    def _dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, message: ConsoleMessage) -> None:
        url = message.location.get("url", "")
        if message.type in ("error", "warning") and urlsplit(url).path not in self.refused:
            self.faults.append(f"console: {message.text} {url}")

    def _request(self, request: Request) -> None:
        target = urlsplit(request.url)
        origin = f"{target.scheme}://{target.netloc}"
        if target.scheme not in ("data", "blob") and origin not in {self.origin, *self.others}:
            self.faults.append(f"other host: {request.url}")


def until(page: Page, expression: str, arg: object = None) -> None:
    """Waits until an expression is true.

    Playwright's own wait compiles text in the page, which the Content-Security-Policy forbids.
    """
    eventually(lambda: page.evaluate(expression, arg), STEP)


@contextlib.contextmanager
def visiting(browser: Browser, origin: str, **options: Any) -> Iterator[Visit]:
    """Opens an empty tab of a new user. At the end of the block there must be no faults.

    Args:
        browser: A running browser.
        origin: The origin of the server.
        options: Options of `Browser.new_context`, such as `color_scheme` and `viewport`.
    """
    context = browser.new_context(**options)
    try:
        visit = Visit(context.new_page(), origin)
        yield visit
        assert visit.faults == []
    finally:
        context.close()
