"""The streams that offer places: they end with what was wanted, and offer again what nobody used."""

from __future__ import annotations

import asyncio

import pytest

from spincycle_grpc.errors import ResourceExhaustedError
from spincycle_server.job_runner import capacity_streams as capacity_streams_module
from spincycle_server.job_runner import places as places_module
from spincycle_server.job_runner.capacity_streams import CapacityStreams
from tests.limits import STEP


class Runner:
    """A runner with some free places."""

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.streams = CapacityStreams(lambda: self.room)

    def freed(self, places: int) -> None:
        """A chain leaves."""
        self.room += places
        self.streams.offer()

    def took(self) -> None:
        """A chain arrives."""
        self.room -= 1
        self.streams.taken()

    def open(self) -> int:
        """Returns the number of open streams."""
        return int(sum(use.used for use in self.streams.limits()))


@pytest.fixture(autouse=True)
def _endless_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "PROMISED", 3600.0)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_stream_ends_when_it_has_offered_what_was_wanted() -> None:
    runner = Runner()
    offers: list[int] = []

    async def read() -> None:
        async for places in runner.streams.watch(3):
            offers.append(places)

    reading = asyncio.create_task(read())
    await settled()
    assert (offers, runner.open(), runner.streams.wanted) == ([], 1, 3)
    runner.freed(2)
    await settled()
    assert (offers, runner.streams.wanted) == ([2], 1)
    runner.took()
    runner.took()
    runner.freed(5)
    async with asyncio.timeout(STEP):
        await reading
    assert (offers, runner.open(), runner.streams.wanted) == ([2, 1], 0, 0)


async def test_a_runner_that_has_room_when_the_stream_opens_offers_it_at_once() -> None:
    runner = Runner(room=2)
    async with asyncio.timeout(STEP):
        assert [places async for places in runner.streams.watch(2)] == [2]


async def test_places_that_are_kept_are_not_offered() -> None:
    runner = Runner()
    stream = runner.streams.watch(5)
    first = asyncio.ensure_future(anext(stream))
    await settled()
    runner.streams.keep(2)
    runner.freed(3)
    async with asyncio.timeout(STEP):
        assert await first == 1
    await stream.aclose()


async def test_a_place_is_offered_again_if_nobody_has_used_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "PROMISED", 0.01)
    runner = Runner(room=1)
    async with asyncio.timeout(STEP):
        assert [places async for places in runner.streams.watch(3)] == [1, 1, 1]


async def test_an_offer_that_a_closed_stream_has_not_sent_goes_to_the_next() -> None:
    runner = Runner()
    leaving, staying = runner.streams.watch(1), runner.streams.watch(1)
    first = asyncio.ensure_future(anext(leaving))
    await settled()
    second = asyncio.ensure_future(anext(staying))
    await settled()
    runner.freed(1)
    first.cancel()  # before it has run
    async with asyncio.timeout(STEP):
        assert await second == 1
    assert runner.streams.wanted == 0


async def test_the_number_of_streams_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity_streams_module, "MAX_STREAMS", 1)
    runner = Runner()
    first = asyncio.ensure_future(anext(runner.streams.watch(1)))
    await settled()
    with pytest.raises(ResourceExhaustedError) as raised:
        await anext(runner.streams.watch(1))
    assert raised.value.reason == "TOO_MANY_STREAMS"
    assert runner.open() == 1
    first.cancel()
    await asyncio.wait({first})
    assert runner.open() == 0
