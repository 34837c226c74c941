"""Watchers see which jobs run and why a request waits, and nobody is asked for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence

import pytest

from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.request_manager_pb2 import WatchRequest, WatchResponse
from spincycle_grpc.v1.status_pb2 import JobStatus
from spincycle_server.store import Store
from spincycle_server.watch import RunningJobsPoll, RunningSnapshots, heartbeat
from spincycle_server.watch.cursor import read_cursor, scope_of
from tests.databases import engine_of
from tests.limits import STEP
from tests.store.samples import RUNNER, a_log_entry, a_report, create
from tests.watch.test_watching import Stream, is_watched
from tests.watch.watchers import Manager, watched


class Runners:
    """Lists jobs, also of requests that nobody asks for, and remembers what it was asked."""

    def __init__(self) -> None:
        self.jobs: list[JobStatus] = []
        self.asked: list[tuple[set[str], set[str]]] = []
        self.snapshots = RunningSnapshots(self._jobs_of)

    async def _jobs_of(self, request_ids: Sequence[str], urls: Collection[str]) -> list[JobStatus]:
        self.asked.append((set(request_ids), set(urls)))
        return self.jobs


@pytest.fixture
async def manager(store: Store) -> AsyncIterator[Manager]:
    async with watched(store) as manager:
        yield manager


async def begin(manager: Manager, request_id: str) -> Stream:
    """Opens a stream that has joined the hub."""
    stream = Stream(manager, WatchRequest(request_id=request_id))
    await stream.next()
    return stream


async def test_watchers_get_the_running_jobs_of_their_request_when_these_change(manager: Manager) -> None:
    runners = Runners()
    poll = RunningJobsPoll(manager.hub, runners.snapshots.of)
    await poll.show()
    assert not runners.asked, "nobody watches"
    made = [(await create(manager.store)).id for _ in range(2)]
    first = await begin(manager, made[0])
    runners.jobs = [JobStatus(request_id=request_id, job_id="aaaa") for request_id in made]
    waiting = first.soon("running")
    await is_watched(manager)
    await poll.show()
    assert runners.asked == [({made[0]}, {RUNNER.url})], "only the watched request, and its runner"
    (snapshot,) = (await waiting).running
    assert (snapshot.request_id, [job.job_id for job in snapshot.jobs]) == (made[0], ["aaaa"])
    waiting = first.soon("running")
    await poll.show()  # Nothing has changed.
    runners.jobs[0].status = "half done"
    await poll.show()
    assert (await waiting).running[0].jobs[0].status == "half done"
    second = await begin(manager, made[1])
    waiting = second.soon("running")
    while len(manager.hub.watched) < 2:
        await manager.hub.position()
    await poll.show()
    assert runners.asked[-1] == (set(made), {RUNNER.url}), "all at once"
    assert (await waiting).running[0].request_id == made[1]
    await first.close()
    await second.close()


async def test_jobs_of_a_request_that_does_not_run_are_not_asked_for(manager: Manager) -> None:
    runners = Runners()
    poll = RunningJobsPoll(manager.hub, runners.snapshots.of)
    request = await create(manager.store, None)
    stream = await begin(manager, request.id)
    waiting = stream.soon("requests")
    await is_watched(manager)
    await poll.show()
    assert not runners.asked
    await manager.store.stop_unassigned(request.id)
    await waiting


async def test_watchers_learn_why_a_request_waits_when_the_reason_changes(manager: Manager) -> None:
    poll = RunningJobsPoll(manager.hub, Runners().snapshots.of)
    request = await create(manager.store, None)
    stream = await begin(manager, request.id)
    waiting = stream.soon("requests")
    await is_watched(manager)
    reasons = manager.store.reasons
    reasons.of_runners = lambda state, *_: "all runners are full" if state is State.PENDING else ""
    await poll.explain()
    assert (await waiting).requests[0].waiting == "all runners are full"
    waiting = stream.soon("requests")
    await poll.explain()  # The reason is the same.
    assert await manager.store.assign(request.id, RUNNER, expected_state=State.PENDING)
    found = (await waiting).requests[0]
    assert (found.state, found.waiting) == (2, "")
    await stream.close()


async def test_a_request_that_waits_for_the_same_reason_has_heartbeats(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT", 1.0)
    poll = RunningJobsPoll(manager.hub, Runners().snapshots.of)
    stream = await begin(manager, (await create(manager.store, None)).id)
    beat = asyncio.ensure_future(stream.next())
    await is_watched(manager)
    async with asyncio.timeout(STEP):
        while not beat.done():
            await poll.explain()
            await asyncio.sleep(0.01)
    assert beat.result() == WatchResponse(cursor=beat.result().cursor)
    await stream.close()


async def test_the_cursor_of_a_request_whose_jobs_run_long_stays_young(manager: Manager) -> None:
    runners = Runners()
    poll = RunningJobsPoll(manager.hub, runners.snapshots.of)
    request = await create(manager.store)
    stream = await begin(manager, request.id)
    waiting = stream.soon("running")
    await is_watched(manager)
    seen = []
    for status in ("begun", "half done"):
        runners.jobs = [JobStatus(request_id=request.id, job_id="aaaa", status=status)]
        await poll.show()
        seen.append(read_cursor((await waiting).cursor, scope_of("request", request.id)).position)
        await manager.hub.position()
        waiting = stream.soon("running")
    waiting.cancel()
    first, second = seen
    assert first is not None
    assert second is not None
    assert second.read_at > first.read_at
    await stream.close()


def as_an_original(manager: Manager, statement: str) -> None:
    """Runs a statement that stamps nothing."""
    engine = engine_of(str(manager.store._engine.url))
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


async def test_a_request_that_an_original_has_ended_shows_its_state(manager: Manager) -> None:
    poll = RunningJobsPoll(manager.hub, Runners().snapshots.of)
    request = await create(manager.store)
    stream = await begin(manager, request.id)
    ending = asyncio.ensure_future(stream.rest())
    await is_watched(manager)
    await poll.look()  # Nothing has changed.
    as_an_original(manager, "UPDATE requests SET state = 3")
    await poll.look()
    (message,) = await ending
    assert [one.state for one in message.requests] == [state_pb2.STATE_COMPLETE]


async def test_a_watcher_resumes_after_an_original_has_ended_its_request(manager: Manager) -> None:
    request = await create(manager.store)
    stream = await begin(manager, request.id)
    waiting = stream.soon("tries")
    await is_watched(manager)
    entry = a_log_entry(request.id)
    assert not await manager.store.apply_reports(RUNNER.runner_id, [a_report(request.id, entry)])
    cursor = (await waiting).cursor
    await stream.close()
    as_an_original(manager, "UPDATE requests SET state = 3")
    for expected in ([state_pb2.STATE_COMPLETE], []):
        resumed = Stream(manager, WatchRequest(request_id=request.id, cursor=cursor))
        messages = await resumed.rest()
        assert [one.state for message in messages for one in message.requests] == expected
        cursor = messages[-1].cursor if messages else ""


async def test_a_request_that_another_program_deleted_is_gone(manager: Manager) -> None:
    poll = RunningJobsPoll(manager.hub, Runners().snapshots.of)
    request = await create(manager.store)
    stream = await begin(manager, request.id)
    waiting = stream.soon("gone")
    await is_watched(manager)
    await poll.look()
    assert not await manager.store.apply_reports(RUNNER.runner_id, [a_report(request.id, finished_jobs=1)])
    manager.hub.gone([request.id])
    assert list((await waiting).gone) == [request.id]
