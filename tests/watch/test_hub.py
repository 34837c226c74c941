"""The hub reads once for all watchers, only what is watched, and nothing while nobody watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest

from spincycle_grpc.errors import UnavailableError
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.store.changes import Changes
from spincycle_server.store.positions import Position
from spincycle_server.watch import hub as hub_module
from spincycle_server.watch.hub import MAX_UNREAD, Hub
from spincycle_server.watch.news import News
from spincycle_server.watch.request_news import RequestNews
from spincycle_server.watch.subscription import Subscription
from tests.limits import STEP
from tests.watch.positions import position


class FakeStore:
    """Answers each read with the next position and the changes that a test sets."""

    def __init__(self) -> None:
        self.reads: list[tuple[Position | None, Collection[str] | None, set[str]]] = []
        self.changes: dict[str, Request] = {}
        self.error: Exception | None = None
        self.is_free = asyncio.Event()
        self.is_free.set()

    async def read_changes(
        self, earlier: Position | None, request_ids: Collection[str] | None, arg_names: Collection[str]
    ) -> Changes:
        self.reads.append((earlier, request_ids, set(arg_names)))
        await self.is_free.wait()
        if self.error is not None:
            raise self.error
        changed, self.changes = self.changes, {}
        return Changes(position(w1=len(self.reads)), changed)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
async def hub(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    monkeypatch.setattr(hub_module, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(hub_module, "_RETRY_PAUSE", 0.0)
    fake: Any = store
    hub = Hub(fake)
    rounds = asyncio.create_task(hub.run())
    yield hub
    rounds.cancel()
    await asyncio.wait({rounds})
    assert rounds.cancelled(), rounds.exception()


async def join(hub: Hub, request_id: str) -> Subscription[RequestNews]:
    await hub.position()
    subscription: Subscription[RequestNews] = Subscription(request_id)
    await hub.subscribe(subscription)
    return subscription


async def join_filter(hub: Hub, **args: str) -> Subscription[News]:
    await hub.position()
    subscription: Subscription[News] = Subscription(args=args)
    await hub.subscribe_to_filter(subscription)
    return subscription


async def test_nothing_is_read_while_nobody_watches(
    hub: Hub, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "ROUND_INTERVAL", 0.0)
    hub.changed(["one"])
    for _ in range(20):
        await asyncio.sleep(0)
    assert not store.reads
    subscription = await join(hub, "one")
    hub.unsubscribe(subscription)
    await hub.position()
    count = len(store.reads)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(store.reads) <= count + 1, "at most a round that was due"
    assert store.reads[0] == (None, frozenset(), set()), "a joining watcher needs only the position"


async def test_callers_that_join_together_share_a_round(hub: Hub, store: FakeStore) -> None:
    positions = await asyncio.gather(*(hub.position() for _ in range(50)))
    assert len(store.reads) == 1
    assert set(map(id, positions)) == {id(positions[0])}


async def test_a_position_is_read_after_it_was_asked_for(hub: Hub, store: FakeStore) -> None:
    store.is_free.clear()
    first = asyncio.ensure_future(hub.position())
    while not store.reads:  # noqa: ASYNC110 (it has no event)
        await asyncio.sleep(0)
    second = asyncio.ensure_future(hub.position())
    await asyncio.sleep(0)
    store.is_free.set()
    assert (await first).writers[1].batch == 1
    assert (await second).writers[1].batch == 2, "the round that had begun may miss its changes"


async def test_only_watched_requests_are_read_unless_a_filter_is_watched(hub: Hub, store: FakeStore) -> None:
    await join(hub, "one")
    await join(hub, "two")
    await hub.position()
    assert store.reads[-1][1] == {"one", "two"}
    await join_filter(hub, host="db1")
    await hub.position()
    assert store.reads[-1][1:] == (None, {"host"})


async def test_news_go_to_the_watchers_of_the_request_and_to_filters(hub: Hub, store: FakeStore) -> None:
    one, again, other = await join(hub, "one"), await join(hub, "one"), await join(hub, "other")
    everything = await join_filter(hub)
    store.changes = {"one": Request(id="one")}
    await hub.position()
    news = await one.next(STEP)
    assert news is await again.next(STEP), "built once"
    assert news is not None
    assert news.request == Request(id="one")
    of_filter = await everything.next(STEP)
    assert of_filter is not None
    assert set(of_filter.requests) == {"one"}
    assert await other.next(0.0) is None


async def test_a_change_of_a_watched_request_starts_a_round_at_once(
    hub: Hub, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "ROUND_INTERVAL", STEP)
    one = await join(hub, "one")
    await hub.position()
    count = len(store.reads)
    hub.changed(["other"])
    await asyncio.sleep(0.01)
    assert len(store.reads) == count
    store.changes = {"one": Request(id="one")}
    hub.changed(["other", "one"])
    assert await one.next(STEP) is not None


async def test_changes_for_filters_alone_wait_for_each_other(
    hub: Hub, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "ROUND_INTERVAL", STEP)
    monkeypatch.setattr(hub_module, "LONGEST_PAUSE", 1000 * STEP)
    everything = await join_filter(hub)
    one = await join(hub, "one")
    await hub.position()
    await assert_no_round_for("other", hub, store)
    store.changes["one"] = Request(id="one")
    hub.changed(["one"])
    assert await one.next(STEP) is not None
    news = await everything.next(STEP)
    assert news is not None
    assert set(news.requests) == {"one", "other"}


async def test_rounds_come_at_once_only_for_watchers_that_read_their_news(
    hub: Hub, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "ROUND_INTERVAL", STEP)
    one, everything = await join(hub, "one"), await join_filter(hub)
    await hub.position()
    monkeypatch.setattr(hub_module, "LONGEST_PAUSE", 1000 * STEP)
    for _ in range(3 * MAX_UNREAD):
        await change(hub, store)
        assert await one.next(STEP) is not None
        assert await everything.next(STEP) is not None
    for _ in range(MAX_UNREAD + 1):
        await change(hub, store)
        assert await one.next(STEP) is not None
    await assert_no_round_for("one", hub, store)
    assert everything.unread == MAX_UNREAD + 1


async def assert_no_round_for(request_id: str, hub: Hub, store: FakeStore) -> None:
    """Changes a request, and checks that no round begins at once."""
    count = len(store.reads)
    store.changes = {request_id: Request(id=request_id)}
    hub.changed([request_id])
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(store.reads) == count


async def change(hub: Hub, store: FakeStore) -> None:
    """Changes a request, and waits until a round has begun."""
    count = len(store.reads)
    store.changes = {"one": Request(id="one")}
    hub.changed(["one"])
    while len(store.reads) == count:  # noqa: ASYNC110 (it has no event)
        await asyncio.sleep(0)


async def test_a_round_that_fails_loses_nothing(hub: Hub, store: FakeStore) -> None:
    one = await join(hub, "one")
    before = hub.now()
    store.error = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await hub.position()
    assert hub.now() == before
    store.error = None
    store.changes = {"one": Request(id="one")}
    await hub.position()
    assert store.reads[-1][0] == before, "the next round reads from the same position"
    assert await one.next(STEP) is not None


async def test_a_watcher_that_joins_during_a_round_gets_the_news_after_that_round(
    hub: Hub, store: FakeStore
) -> None:
    await join(hub, "one")
    store.is_free.clear()
    hub.changed(["one"])
    count = len(store.reads)
    while len(store.reads) == count:  # noqa: ASYNC110 (it has no event)
        await asyncio.sleep(0)
    late: Subscription[RequestNews] = Subscription("two")
    joining = asyncio.ensure_future(hub.subscribe(late))
    await asyncio.sleep(0)
    assert not joining.done()
    store.is_free.set()
    assert (await joining).writers[1].batch == count + 1
    await hub.position()
    assert store.reads[count + 1][1] == {"one", "two"}
