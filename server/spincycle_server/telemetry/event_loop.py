"""Measures how late the event loop runs what is due: a loop that is blocked answers nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import Histograms, Instruments

INTERVAL = 0.1
"""Seconds between two measurements."""


class EventLoopDelay:
    """The delays of the event loop."""

    def __init__(self) -> None:
        self._delays = Histograms(catalogue.EVENT_LOOP_DELAY_SECONDS)

    async def run(self) -> None:
        """Measures until cancelled. A measurement is one callback: waking a task takes twice the time."""
        loop = asyncio.get_running_loop()
        delays = self._delays.of()
        clock = time.monotonic  # The loop's clock has milliseconds.
        timer: asyncio.TimerHandle | None = None

        def measure(due: float) -> None:
            nonlocal timer
            now = clock()
            delays.observe(now - due)
            timer = loop.call_later(INTERVAL, measure, now + INTERVAL)

        timer = loop.call_later(INTERVAL, measure, clock() + INTERVAL)
        try:
            await loop.create_future()
        finally:
            timer.cancel()

    @property
    def instruments(self) -> Sequence[Instruments]:
        """What a scrape reads."""
        return (self._delays,)
