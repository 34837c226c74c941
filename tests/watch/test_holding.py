"""With many watchers, changes that follow each other closely are sent together, with the running jobs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import pytest

from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.request_manager_pb2 import RunningJobs
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.state_pb2 import State
from spincycle_grpc.v1.status_pb2 import JobStatus
from spincycle_server.store.changes import Changes, Try, TryKey
from spincycle_server.store.positions import Position
from spincycle_server.watch import hub as hub_module
from spincycle_server.watch.hub import Hub
from spincycle_server.watch.request_news import RequestNews
from spincycle_server.watch.subscription import Subscription
from spincycle_server.watch.watched_request import WatchedRequest
from tests.limits import STEP
from tests.watch.positions import position

RUNNING, COMPLETE = state_pb2.STATE_RUNNING, state_pb2.STATE_COMPLETE


class Script:
    """A store whose rounds have the changes that a test has written, then none."""

    def __init__(self) -> None:
        self.rounds: deque[Changes] = deque()
        self.reads = 0
        self._tries = 0

    def add(self, *, tries: int, state: State.ValueType = RUNNING) -> None:
        """Adds a round in which tries of the request have finished."""
        found = []
        for _ in range(tries):
            self._tries += 1
            entry = JobLog(request_id="one", job_id="aaaa")
            found.append(Try(TryKey("one", 1, self._tries, "aaaa", self._tries), entry, None))
        request = Request(id="one", state=state, finished_jobs=self._tries)
        self.rounds.append(Changes(position(), {"one": request}, found))

    def add_too_much(self) -> None:
        """Adds a round with more changes than one read returns."""
        self.rounds.append(Changes(position(), is_complete=False))

    async def read_changes(
        self, earlier: Position | None, request_ids: Collection[str] | None, arg_names: Collection[str]
    ) -> Changes:
        await asyncio.sleep(0)
        self.reads += 1
        now = position(w1=self.reads)
        if not self.rounds or not request_ids:
            return Changes(now)
        changes = self.rounds.popleft()
        return Changes(now, changes.requests, changes.tries, is_complete=changes.is_complete)


class Runner:
    """Says which jobs run, or fails. Counts the questions."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.hangs = False

    async def jobs_of(self, watched: Sequence[WatchedRequest]) -> dict[str, RunningJobs]:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return {one.request_id: running(f"job {self.asked}") for one in watched}


def running(job_id: str) -> RunningJobs:
    return RunningJobs(request_id="one", jobs=[JobStatus(request_id="one", job_id=job_id)])


@pytest.fixture
def store() -> Script:
    return Script()


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
async def hub(store: Script, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    monkeypatch.setattr(hub_module, "MANY_WATCHERS", 1)
    monkeypatch.setattr(hub_module, "MANY_PAUSE", 0.0)
    monkeypatch.setattr(hub_module, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(hub_module, "HOLD_LIMIT", STEP)
    monkeypatch.setattr(hub_module, "SNAPSHOT_LIMIT", STEP)
    fake: Any = store
    hub = Hub(fake, runner.jobs_of)
    rounds = asyncio.create_task(hub.run())
    yield hub
    rounds.cancel()
    await asyncio.wait({rounds})
    assert rounds.cancelled(), rounds.exception()


async def join(hub: Hub) -> Subscription[RequestNews]:
    await hub.position()
    subscription: Subscription[RequestNews] = Subscription("one")
    await hub.subscribe(subscription)
    return subscription


async def next_news(watcher: Subscription[RequestNews]) -> RequestNews:
    news = await watcher.next(STEP)
    assert news is not None
    return news


def tries_of(news: RequestNews) -> list[int]:
    return [one.key.number for one in news.tries]


async def holding(hub: Hub) -> None:
    """Waits until the hub holds changes."""
    async with asyncio.timeout(STEP):
        while hub.now_of("one") is not None:  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0)


async def test_changes_of_several_rounds_and_the_running_jobs_are_one_message(
    hub: Hub, store: Script
) -> None:
    one, again = await join(hub), await join(hub)
    store.add(tries=1)
    store.add(tries=2)
    hub.changed(["one"])
    news = await next_news(one)
    assert news is await next_news(again)
    assert tries_of(news) == [1, 2, 3]
    assert news.request is not None
    assert news.request.finished_jobs == 3
    assert news.running == running("job 1")
    message = news.message(has_tries=True, has_state=True)
    assert message is news.message(has_tries=True, has_state=True), "built once"
    assert await one.next(0.0) is None


async def test_a_final_state_is_sent_at_once(hub: Hub, store: Script, runner: Runner) -> None:
    one = await join(hub)
    store.add(tries=1)
    store.add(tries=1, state=COMPLETE)
    store.add(tries=0, state=COMPLETE)
    hub.show_running(running("the last job"))
    hub.changed(["one"])
    news = await next_news(one)
    assert (tries_of(news), news.running) == ([1, 2], None)
    assert not runner.asked, "no job runs any longer"


async def test_changes_without_end_are_sent_when_the_limit_is_reached(
    hub: Hub, store: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "HOLD_LIMIT", 0.02)
    one = await join(hub)
    for _ in range(100_000):
        store.add(tries=0)
    hub.changed(["one"])
    await next_news(one)
    assert store.rounds


async def test_a_watcher_that_joins_does_not_get_changes_that_are_held(
    hub: Hub, store: Script, runner: Runner
) -> None:
    one = await join(hub)
    runner.hangs = True  # So the changes stay held.
    store.add(tries=1)
    hub.changed(["one"])
    await holding(hub)
    late: Subscription[RequestNews] = Subscription("one")
    target = await hub.subscribe(late)
    news = await next_news(one)
    assert (tries_of(news), news.position) == ([1], target)
    assert await late.next(0.0) is None
    assert hub.now_of("one") is not None, "nothing is held any longer"


async def test_no_cursor_passes_changes_that_are_held(hub: Hub, store: Script, runner: Runner) -> None:
    one = await join(hub)
    before = hub.now_of("one")
    assert before is not None
    runner.hangs = True
    store.add(tries=1)
    hub.changed(["one"])
    await holding(hub)
    assert hub.now() != before
    hub.gone(["one"])
    assert tries_of(await next_news(one)) == [1]
    assert (await next_news(one)).is_gone


async def test_held_changes_come_before_a_round_that_the_watchers_read_themselves(
    hub: Hub, store: Script
) -> None:
    one = await join(hub)
    store.add(tries=1)
    store.add_too_much()
    hub.changed(["one"])
    held, too_much = await next_news(one), await next_news(one)
    assert (tries_of(held), too_much.is_complete) == ([1], False)
    assert held.position.writers[1].batch < too_much.position.writers[1].batch


async def test_a_runner_that_does_not_answer_delays_no_changes(
    hub: Hub, store: Script, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "SNAPSHOT_LIMIT", 0.01)
    one = await join(hub)
    runner.hangs = True
    store.add(tries=1)
    hub.changed(["one"])
    news = await next_news(one)
    assert (tries_of(news), news.running) == ([1], None)
    runner.error, runner.hangs = ZeroDivisionError("the runner's answer is broken"), False
    store.add(tries=1)
    hub.changed(["one"])
    news = await next_news(one)
    assert (tries_of(news), news.running) == ([2], None)
    assert runner.asked == 2


async def test_running_jobs_come_at_most_once_in_their_interval(
    hub: Hub, store: Script, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await join(hub)
    shown = []
    for interval in (STEP, STEP, 0.0):
        monkeypatch.setattr(hub_module, "SNAPSHOT_INTERVAL", interval)
        store.add(tries=1)
        hub.changed(["one"])
        shown.append((await next_news(one)).running is not None)
        assert bool(hub.running_requests()) is (interval == 0.0)
    assert shown == [True, False, True]
    assert runner.asked == 2


async def test_a_snapshot_waits_for_the_changes_that_belong_to_it(
    hub: Hub, store: Script, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await join(hub)
    store.add(tries=1)
    hub.changed(["one"])
    assert (await next_news(one)).running == running("job 1")
    hub.show_running(running("an older snapshot"))
    monkeypatch.setattr(hub_module, "SNAPSHOT_INTERVAL", 0.0)
    monkeypatch.setattr(hub_module, "SNAPSHOT_LIMIT", 0.01)
    runner.hangs = True  # So there is no newer snapshot.
    store.add(tries=1)
    hub.show_running(running("next job"))
    assert await one.next(0.0) is None
    news = await next_news(one)
    assert (tries_of(news), news.running) == ([2], running("next job"))
    hub.show_running(running("next job"))  # Nothing has changed.
    assert hub.now_of("one") is not None
