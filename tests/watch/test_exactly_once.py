"""Each try arrives once and in order, and the last state arrives: any interleaving, two Request Managers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from spincycle_grpc.state import FINAL_STATES, State
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_server.watch import filter_stream, hub, pieces, request_stream
from tests.databases import SERVERS, SharedServers, migrated_sqlite
from tests.limits import STEP
from tests.store.managers import open_beside
from tests.store.samples import RUNNER, a_log_entry, a_report, create
from tests.watch.watchers import Manager, Watcher, watched

REQUESTS = 3
MANAGERS = (0, 1)

_action = st.one_of(
    st.tuples(st.just("create"), st.sampled_from(MANAGERS)),
    # A report of some tries, perhaps sent to both at once, perhaps with the end.
    st.tuples(
        st.just("report"),
        st.sampled_from(MANAGERS),
        st.integers(0, REQUESTS - 1),
        st.integers(0, 3),
        st.sampled_from(["alone", "alone", "both"]),
        st.sampled_from([None, None, None, State.COMPLETE, State.FAIL]),
    ),
    st.tuples(st.just("stop"), st.sampled_from(MANAGERS), st.integers(0, REQUESTS - 1)),
    st.tuples(st.just("take over"), st.sampled_from(MANAGERS), st.integers(0, REQUESTS - 1)),
    # A watcher of one request or of all: it begins, or goes on with its cursor on any Request Manager.
    st.tuples(st.just("watch"), st.sampled_from(MANAGERS), st.integers(-1, REQUESTS - 1)),
    st.tuples(st.just("leave"), st.integers(-1, REQUESTS - 1)),
    st.tuples(st.just("restart"), st.sampled_from(MANAGERS)),
    st.tuples(st.just("let run"), st.integers(0, 3)),
)
ACTIONS = st.lists(st.lists(_action, min_size=1, max_size=3), min_size=1, max_size=14)
"""Groups of actions. Those of a group run at once, except that restarts come last."""

SIZES = st.sampled_from([150, 100_000])
"""Sizes of messages: many messages for a change, or one that all watchers of a request share."""


@dataclass
class Model:
    """What a request should look like.

    Attributes:
        tries: The tries that were reported.
        state: Its state.
        epoch: Its assignment.
    """

    id: str
    tries: list[int] = field(default_factory=list)
    state: State = State.RUNNING
    epoch: int = 1
    ordinal: int = 0
    is_busy: bool = False


class World:
    """Two Request Managers on one database, requests, and watchers."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stacks = [contextlib.AsyncExitStack(), contextlib.AsyncExitStack()]
        self.managers: list[Manager] = []
        self.requests: list[Model] = []
        self.watchers: dict[int, Watcher] = {}
        self._following: dict[int, tuple[int, asyncio.Task[None]]] = {}
        self._clock = 0
        # The tries that had been reported when the watcher of all requests had its first state.
        self._before: dict[str, int] = {}

    async def open(self) -> None:
        for number in MANAGERS:
            self.managers.append(await self._start(number))
        await self.managers[0].store.renew_runner(RUNNER, 3600.0, draining=False)
        await self._create(0)

    async def _start(self, number: int) -> Manager:
        store = await open_beside(self._url)
        self._stacks[number].push_async_callback(store.close)
        return await self._stacks[number].enter_async_context(watched(store))

    async def close(self) -> None:
        for key in list(self._following):
            await self._leave(key)
        for stack in self._stacks:
            await stack.aclose()

    async def run(self, action: tuple[object, ...]) -> None:
        kind, *arguments = action
        await getattr(self, f"_{str(kind).replace(' ', '_')}")(*arguments)

    async def _create(self, number: int) -> None:
        if len(self.requests) < REQUESTS:
            model = Model("")
            self.requests.append(model)
            model.is_busy = True
            model.id = (await create(self.managers[number].store)).id
            model.is_busy = False

    def _free(self, index: int) -> Model | None:
        """Returns a request that runs and that no other action of the group changes."""
        if index >= len(self.requests):
            return None
        model = self.requests[index]
        return None if model.is_busy or model.state is not State.RUNNING else model

    async def _report(self, number: int, index: int, tries: int, how: str, end: State | None) -> None:
        model = self._free(index)
        if model is None or not (tries or end):
            return
        model.is_busy = True
        entries = []
        for _ in range(tries):
            self._clock += 1
            model.tries.append(self._clock)
            state = State.COMPLETE if self._clock % 3 else State.FAIL
            entries.append(
                a_log_entry(model.id, number=len(model.tries), started_at=self._clock, state=state)
            )
        report = a_report(
            model.id, *entries, epoch=model.epoch, first=model.ordinal + 1,
            finished_jobs=len(model.tries) // 2, ends=end,
        )  # fmt: skip
        model.ordinal += tries
        asked = [self.managers[one].store for one in (MANAGERS if how == "both" else (number,))]
        refused = await asyncio.gather(*(store.apply_reports(RUNNER.runner_id, [report]) for store in asked))
        assert not any(refused)
        model.state = end or model.state
        model.is_busy = False

    async def _stop(self, number: int, index: int) -> None:
        model = self._free(index)
        if model is not None:
            await self.managers[number].store.request_stop(model.id)

    async def _take_over(self, number: int, index: int) -> None:
        """Gives a request back and assigns it again, so that it has a new epoch."""
        model = self._free(index)
        if model is None:
            return
        model.is_busy = True
        store = self.managers[number].store
        assignment = await store.get_assignment(model.id)
        assert assignment is not None
        assert await store.unassign(assignment[0], State.PENDING)
        again = await store.assign(model.id, RUNNER, expected_state=State.PENDING)
        if again is None:  # A stop was requested before.
            model.state = State.STOPPED
        else:
            model.epoch, model.ordinal = again.epoch, 0
        model.is_busy = False

    async def _watch(self, number: int, index: int) -> None:
        if index >= len(self.requests) or (index >= 0 and not self.requests[index].id):
            return
        if index in self._following and not self._following[index][1].done():
            return
        known = self.requests[index].id if index >= 0 else ""
        watcher = self.watchers.setdefault(
            index, Watcher(known, None if index >= 0 else RequestFilter(type="stop-host"))
        )
        if index < 0:
            watcher.on_snapshot = self._note_tries
        if not watcher.has_ended:
            task = asyncio.create_task(watcher.follow(self.managers[number]))
            self._following[index] = number, task
            await asyncio.sleep(0)

    def _note_tries(self) -> None:
        self._before = {model.id: len(model.tries) for model in self.requests}

    async def _leave(self, index: int) -> None:
        if index in self._following:
            _, task = self._following.pop(index)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled() or task.exception() is None, task.exception()

    async def _restart(self, number: int) -> None:
        for key in [key for key, (on, _) in self._following.items() if on == number]:
            await self._leave(key)
        await self._stacks[number].aclose()
        self._stacks[number] = contextlib.AsyncExitStack()
        self.managers[number] = await self._start(number)

    async def _let_run(self, milliseconds: int) -> None:
        await asyncio.sleep(milliseconds * 0.02)

    async def check(self) -> None:
        """Lets all watchers see the end, and compares what they saw with the model."""
        for index in (-1, *range(len(self.requests))):
            await self._watch(index % 2, index)
        for model in self.requests:
            if model.state is State.RUNNING:
                report = a_report(model.id, epoch=model.epoch, first=model.ordinal + 1, ends=State.COMPLETE)
                assert not await self.managers[0].store.apply_reports(RUNNER.runner_id, [report])
                model.state = State.COMPLETE
        async with asyncio.timeout(STEP):
            while not all(self._is_seen(index) for index in self.watchers):  # noqa: ASYNC110 (they have none)
                await asyncio.sleep(0.005)
        for index, watcher in self.watchers.items():
            assert not watcher.too_early, (index, watcher)
            assert watcher.snapshots == 1, (index, watcher)
            assert not watcher.resets

    def _is_seen(self, index: int) -> bool:
        watcher = self.watchers[index]
        if index in self._following and self._following[index][1].done():
            self._following[index][1].result()
        for model in [self.requests[index]] if index >= 0 else self.requests:
            if index >= 0:
                assert watcher.tries[model.id] == model.tries[: len(watcher.tries[model.id])], (
                    watcher,
                    model,
                )
            else:  # A filter has no tries from before its first message.
                seen = watcher.tries[model.id]
                start = model.tries.index(seen[0]) if seen else 0
                assert seen == model.tries[start : start + len(seen)], (watcher, model)
                if len(model.tries) - len(seen) > self._before.get(model.id, 0):
                    return False
            if watcher.states.get(model.id) not in FINAL_STATES or watcher.states[model.id] != model.state:
                return False
            if index >= 0 and len(watcher.tries[model.id]) != len(model.tries):
                return False
        return True


async def play(url: str, groups: list[list[tuple[object, ...]]]) -> None:
    world = World(url)
    await world.open()
    try:
        for group in groups:
            await asyncio.gather(*(world.run(action) for action in group if action[0] != "restart"))
            for action in group:
                if action[0] == "restart":
                    await world.run(action)
        await world.check()
    finally:
        await world.close()


def make_small(monkeypatch: pytest.MonkeyPatch, size: int, *, holds: bool) -> None:
    """Makes pages small and rounds frequent.

    A message is full after `size` bytes. The hub holds changes if `holds`, as with many watchers.
    """
    monkeypatch.setattr(hub, "MANY_WATCHERS", 1 if holds else 100)
    monkeypatch.setattr(hub, "MANY_PAUSE", 0.005)
    monkeypatch.setattr(hub, "HOLD_LIMIT", 0.01)
    monkeypatch.setattr(request_stream, "PAGE", 2)
    monkeypatch.setattr(filter_stream, "PAGE", 2)
    monkeypatch.setattr(filter_stream, "_REQUESTS_AT_ONCE", 2)
    monkeypatch.setattr(pieces, "MAX_BYTES", size)
    monkeypatch.setattr(hub, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(hub, "ROUND_INTERVAL", 0.02)


@pytest.fixture(scope="module")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite file with the current schema, to be copied."""
    file = tmp_path_factory.mktemp("watch") / "watch.db"
    migrated_sqlite(file)
    return file


@settings(max_examples=int(os.environ.get("WATCH_EXAMPLES", "60")))
@given(groups=ACTIONS, size=SIZES, holds=st.booleans())
def test_watchers_see_each_try_once_and_the_last_state_on_sqlite(
    sqlite_file: Path, groups: list[list[tuple[object, ...]]], size: int, holds: bool
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_small(monkeypatch, size, holds=holds)
        with tempfile.TemporaryDirectory() as directory:
            shutil.copy(sqlite_file, directory)
            asyncio.run(play(f"sqlite:///{Path(directory, sqlite_file.name)}", groups))


@pytest.mark.parametrize("kind", SERVERS)
@settings(max_examples=int(os.environ.get("WATCH_EXAMPLES", "10")), phases=(Phase.generate,))
@given(groups=ACTIONS, size=SIZES, holds=st.booleans())
def test_watchers_see_each_try_once_and_the_last_state_on_servers(
    database_servers: SharedServers,
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    groups: list[list[tuple[object, ...]]],
    size: int,
    holds: bool,
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_small(monkeypatch, size, holds=holds)
        with database_servers.migrated(kind, tmp_path_factory.getbasetemp()) as url:
            asyncio.run(play(url, groups))
