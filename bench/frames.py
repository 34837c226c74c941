"""Benchmark of the graph of 10,000 hosts (40,006 jobs) in Chromium: its first frame, and frames of a pan.

Frames per second depend on everything else that the machine does. So the CPU time of the main thread is
measured too, for each frame.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, expect
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from tests.e2e.waiting import wait_state
from tests.limits import ANSWER
from tests.page.browsers import WIDE, chromium, until, visiting
from tests.page.fleets import prepare, serving_hosts
from tests.page.panning import MainThread, Pan, open_graph, pan

HOSTS = 10_000
COMPLETE = 3
MIDDLE = f"host-{HOSTS // 2:05}"
COLUMNS = ("view", "most drawn", "frames/s", "median", "longest", "CPU per frame")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Measures the frames of the graph of 10,000 hosts.")
    parser.add_argument("--seconds", type=float, default=5, help="how long each view is panned")
    options = parser.parse_args(arguments)
    console = Console()
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        directory = Path(temporary)
        prepare(directory)
        with serving_hosts(directory) as server:
            origin = f"http://{server.address('request-manager', 'http')}"
            request_id = _fleet(origin)
            _measure(console, browser, origin, request_id, options.seconds)
    return 0


def _fleet(origin: str) -> str:
    """Runs a request over all hosts, and returns its id."""
    hosts = [f"host-{number:05}" for number in range(HOSTS)]
    with httpx.Client(base_url=origin, timeout=ANSWER) as http:
        answer = http.post("/api/v1/requests", json={"type": "fleet", "args": {"hosts": hosts}})
        assert answer.status_code == 201, answer.text
        request_id = str(answer.json()["id"])
        wait_state(http, f"{request_id}?view=BASIC", COMPLETE)
    return request_id


def _measure(console: Console, browser: Browser, origin: str, request_id: str, seconds: float) -> None:
    load, cores = os.getloadavg()[0], os.cpu_count()
    viewport = {"width": WIDE, "height": 800}
    table = Table(*COLUMNS, box=MARKDOWN)
    with visiting(browser, origin, viewport=viewport) as visit:
        page = visit.open(f"/requests/{request_id}")
        expect(page.get_by_role("row").filter(has_text="host-").first).to_be_visible()
        thread = MainThread(page)
        before = thread.seconds()
        first = open_graph(page)
        cpu = thread.seconds() - before
        for name in _views(page):
            table.add_row(name, *_cells(pan(page, thread, seconds)))
        version = browser.version
    console.print(
        f"Chromium {version} on {cores} cores with a load of {load:.1f}. "
        f"First frame {first:.0f} ms after the click, "
        f"with {1000 * cpu:.0f} ms of CPU time of the main thread.",
        soft_wrap=True,
    )
    console.print(table)


def _views(page: Page) -> Iterator[str]:
    """Shows one view after the other, and yields their names."""
    yield "all, closed"
    _change(page, lambda: page.get_by_role("button", name="Open all").click())
    yield "all, open"
    # Finding zooms to a scale of 0.7, and each press divides it by 1.25.
    for scale, presses in (("29 %", 4), ("56 %", 1), ("70 %", 0)):
        _change(page, lambda: _find(page))
        for _ in range(presses):
            _change(page, lambda: page.keyboard.press("-"))
        yield f"open, at {scale}"


def _find(page: Page) -> None:
    page.get_by_role("button", name="Show all").click()
    page.get_by_role("searchbox", name="Find a job or a host").fill(MIDDLE)
    page.keyboard.press("Enter")
    page.get_by_role("application", name="Job chain").focus()


def _change(page: Page, change: Callable[[], None]) -> None:
    """Changes the view, and waits until it is drawn."""
    drawn = page.evaluate("window.graphFrames.drawn.length")
    change()
    until(page, "drawn => window.graphFrames.drawn.length > drawn", drawn)


def _cells(found: Pan) -> tuple[str, ...]:
    return (
        f"{found.most:,}",
        f"{found.rate:.0f}",
        f"{found.middle:.0f} ms",
        f"{max(found.intervals):.0f} ms",
        f"{found.cpu:.1f} ms",
    )


if __name__ == "__main__":
    sys.exit(main())
