"""A watcher's queue of news is bounded."""

from __future__ import annotations

import asyncio
import time

import pytest

from spincycle_grpc.errors import ResourceExhaustedError
from spincycle_grpc.v1.request_manager_pb2 import RunningJobs
from spincycle_server.watch.news import News
from spincycle_server.watch.request_news import RequestNews
from spincycle_server.watch.subscription import MAX_NEWS, Subscription
from tests.limits import STEP
from tests.watch.positions import position


def news(batch: int) -> News:
    return News(position(w1=batch))


async def test_news_come_in_order_and_a_reader_waits_for_them() -> None:
    subscription: Subscription[News] = Subscription("one")
    waiting = asyncio.ensure_future(subscription.next(STEP))
    await asyncio.sleep(0)
    some = [news(1), news(2)]
    for one in some:
        subscription.put(one)
    assert [await waiting, await subscription.next(STEP)] == some


async def test_without_news_the_wait_ends() -> None:
    subscription: Subscription[News] = Subscription("one")
    assert await subscription.next(0.0) is None


async def test_a_wait_lasts_as_long_as_the_last_call_says() -> None:
    subscription: Subscription[News] = Subscription("one")
    loop = asyncio.get_running_loop()
    for limits in ((STEP, 0.05), (0.05, 0.1)):  # The timer of the first wait is too late, then too early.
        waiting = asyncio.ensure_future(subscription.next(limits[0]))
        await asyncio.sleep(0)
        subscription.put(news(1))
        assert await waiting == news(1)
        began = loop.time()
        assert await subscription.next(limits[1]) is None
        assert loop.time() - began >= limits[1]
    subscription.close()


async def test_news_that_arrive_as_the_wait_ends_are_not_missed() -> None:
    # Otherwise a heartbeat would have a cursor after news that were not sent.
    subscription: Subscription[News] = Subscription("one")
    waiting = asyncio.ensure_future(subscription.next(0.0001))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(subscription.put, news(1))
    time.sleep(0.001)  # noqa: ASYNC251 (so both happen in one turn of the event loop, the news first)
    assert await waiting == news(1)


async def test_a_reader_with_too_many_news_is_too_slow_for_good() -> None:
    subscription: Subscription[News] = Subscription("one")
    for batch in range(MAX_NEWS):
        subscription.put(news(batch))
    assert await subscription.next(STEP) is not None
    for _ in range(2):
        subscription.put(news(0))
    for _ in range(2):
        with pytest.raises(ResourceExhaustedError) as caught:
            await subscription.next(STEP)
        assert caught.value.reason == "WATCHER_TOO_SLOW"
        subscription.put(news(0))


async def test_snapshots_make_no_reader_too_slow() -> None:
    subscription: Subscription[RequestNews] = Subscription("one")
    snapshot = RequestNews("one", position(w1=1), running=RunningJobs(request_id="one"), is_repeated=True)
    for number in range(2 * MAX_NEWS):
        assert subscription.put(snapshot) is (number < MAX_NEWS)
    assert await subscription.next(STEP) is not None
