"""A connection is aborted if its client stops reading, and only then."""

from __future__ import annotations

import asyncio

from spincycle_server.gateway.stalled_clients import StallWatch
from tests.limits import STEP

TIMEOUT = 0.01


class BufferedTransport(asyncio.Transport):
    """A transport with bytes to send, of which the client reads some before each check."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self._sizes = sizes
        self.checks = 0
        self.aborted = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        self.checks += 1
        return self._sizes.pop(0) if len(self._sizes) > 1 else self._sizes[0]

    def abort(self) -> None:
        self.aborted.set()


async def test_a_client_that_reads_nothing_is_disconnected() -> None:
    transport = BufferedTransport([100])
    StallWatch(transport, TIMEOUT).start()
    async with asyncio.timeout(STEP):
        await transport.aborted.wait()


async def test_a_client_that_reads_some_is_disconnected_only_when_it_stops() -> None:
    transport = BufferedTransport([100, 90, 90, 80, 80, 80])
    StallWatch(transport, TIMEOUT).start()
    async with asyncio.timeout(STEP):
        await transport.aborted.wait()
    assert transport.checks == 6


async def test_a_client_that_has_read_everything_is_not_watched() -> None:
    transport = BufferedTransport([100, 0])
    watch = StallWatch(transport, TIMEOUT)
    watch.start()
    async with asyncio.timeout(STEP):
        while transport.checks < 3:  # noqa: ASYNC110 (the watch has no event)
            await asyncio.sleep(TIMEOUT)
    await asyncio.sleep(5 * TIMEOUT)
    assert transport.checks == 3
    assert not transport.aborted.is_set()


async def test_a_stopped_watch_does_not_check() -> None:
    transport = BufferedTransport([100])
    watch = StallWatch(transport, TIMEOUT)
    watch.start()
    watch.stop()
    await asyncio.sleep(5 * TIMEOUT)
    assert transport.checks == 1
    assert not transport.aborted.is_set()
