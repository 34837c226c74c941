"""The delay of the event loop: each interval has one measurement, until the task is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from spincycle_server.telemetry import event_loop
from spincycle_server.telemetry.event_loop import EventLoopDelay
from spincycle_server.telemetry.instruments import Distribution


def measured(delay: EventLoopDelay) -> Distribution:
    (family,) = delay.instruments
    (sample,) = family.samples()
    assert isinstance(sample.value, Distribution)
    return sample.value


async def test_a_blocked_loop_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "INTERVAL", 0.01)
    delay = EventLoopDelay()
    running = asyncio.create_task(delay.run())
    (family,) = delay.instruments
    while not list(family.samples()):  # noqa: ASYNC110 (it has no event)
        await asyncio.sleep(0.01)
    time.sleep(0.3)  # noqa: ASYNC251 (blocks the loop, which is what is measured)
    before = sum(measured(delay).counts)
    while sum(measured(delay).counts) == before:  # noqa: ASYNC110 (it has no event)
        await asyncio.sleep(0.01)
    assert measured(delay).total >= 0.2
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    after = measured(delay)
    await asyncio.sleep(0.1)
    assert measured(delay) == after
