"""Pans the graph in a real browser, and counts its frames."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import CDPSession, Page

from tests.page.browsers import until

_BEGIN = """() => {
  const graph = { clicked: 0, first: 0, drawn: [], times: [] };
  window.graphFrames = graph;
  addEventListener("spincycle-drawn", (event) => {
    if (!graph.first) graph.first = performance.now();
    graph.drawn.push(event.detail);
  });
  const tab = [...document.querySelectorAll("[role=tab]")].find((one) => one.textContent === "Graph");
  graph.clicked = performance.now();
  tab.click();
}"""

# Each frame pans by one step, to and fro along both axes, so each frame has something new to draw.
_PAN = """([seconds, steps]) => new Promise((done) => {
  const graph = window.graphFrames;
  const canvas = document.querySelector(".graph-canvas");
  const keys = ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"];
  let count = 0;
  let end = 0;
  graph.times = [];
  graph.drawn = [];
  const pan = (now) => {
    end ||= now + seconds * 1000;
    graph.times.push(now);
    if (now >= end) return done();
    const key = keys[Math.floor(count++ / steps) % keys.length];
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key, shiftKey: true, bubbles: true }));
    requestAnimationFrame(pan);
  };
  requestAnimationFrame(pan);
})"""

STEPS = 12
"""Steps in one direction before the next one. Each is 80 pixels."""


@dataclass(frozen=True)
class Pan:
    """What a pan of some seconds was like.

    Attributes:
        intervals: The times between frames in milliseconds.
        drawn: What each frame has drawn.
        cpu: The CPU time of the main thread for each frame in milliseconds.
    """

    intervals: Sequence[float]
    drawn: Sequence[dict[str, Any]]
    cpu: float

    @property
    def rate(self) -> float:
        """Frames per second."""
        return 1000 * len(self.intervals) / sum(self.intervals)

    @property
    def middle(self) -> float:
        """The median time between two frames in milliseconds."""
        return statistics.median(self.intervals)

    @property
    def most(self) -> int:
        """The most items and edges that a frame has drawn."""
        return max(int(drawn["items"] + drawn["specks"] + drawn["edges"]) for drawn in self.drawn)


class MainThread:
    """The CPU time of a tab's main thread."""

    def __init__(self, page: Page) -> None:
        self._session: CDPSession = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds(self) -> float:
        """Returns the CPU time so far in seconds."""
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return float({metric["name"]: metric["value"] for metric in metrics}["TaskDuration"])


def open_graph(page: Page) -> float:
    """Opens the tab of the graph. Returns the milliseconds from the click to its first frame."""
    page.get_by_role("tab", name="Graph").wait_for()
    page.evaluate(_BEGIN)
    until(page, "window.graphFrames.first > 0")
    return float(page.evaluate("window.graphFrames.first - window.graphFrames.clicked"))


def pan(page: Page, thread: MainThread, seconds: float) -> Pan:
    """Pans the open graph for some seconds."""
    before = thread.seconds()
    page.evaluate(_PAN, [seconds, STEPS])
    cpu = thread.seconds() - before
    times = page.evaluate("window.graphFrames.times")
    intervals = [after - at for at, after in itertools.pairwise(times)]
    return Pan(intervals, page.evaluate("window.graphFrames.drawn"), 1000 * cpu / len(intervals))
