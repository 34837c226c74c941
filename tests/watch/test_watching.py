"""What a stream begins with, when it ends, and who may have one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
from sqlalchemy import delete

from spincycle_grpc.auth import Caller
from spincycle_grpc.errors import InvalidArgumentError, SpinCycleError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.request_manager_pb2 import RunningJobs, WatchRequest, WatchResponse
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_grpc.v1.status_pb2 import JobStatus
from spincycle_server.identity import Identity
from spincycle_server.identity.access import AccessLists
from spincycle_server.identity.permissions import Permissions
from spincycle_server.maintenance.retention import Retention
from spincycle_server.shared_messages import SharedMessage
from spincycle_server.specs.model import AclSpec
from spincycle_server.store import Store
from spincycle_server.store.positions import MAX_AGE, Position
from spincycle_server.store.schema import requests
from spincycle_server.watch import filter_stream, heartbeat, hub, request_stream, subscription
from spincycle_server.watch.cursor import Cursor, read_cursor, scope_of
from spincycle_server.watch.filter_stream import FilterStream
from spincycle_server.watch.news import News
from spincycle_server.watch.subscription import Subscription
from tests.databases import OPTIONS, engine_of
from tests.graph.models import NOWHERE, node, sequence, specs
from tests.limits import STEP
from tests.store.samples import RUNNER, a_log_entry, a_report, create
from tests.watch.positions import position
from tests.watch.watchers import NO_LISTS, Manager, Watcher, message_of, watched

READER = Identity(Caller("finch", frozenset(["reader"])))
LOGGER = Identity(Caller("owl", frozenset(["reader", "logger"])))
STRANGER = Identity(Caller("wren"))


@pytest.fixture
async def manager(store: Store) -> AsyncIterator[Manager]:
    async with watched(store) as manager:
        yield manager


class Stream:
    """An open stream."""

    def __init__(self, manager: Manager, request: WatchRequest, identity: Identity = READER) -> None:
        self._answers = manager.watching.watch(request, identity)

    async def answer(self) -> WatchResponse | SharedMessage:
        async with asyncio.timeout(STEP):
            return await anext(self._answers)

    async def next(self) -> WatchResponse:
        return message_of(await self.answer())

    async def until(self, name: str) -> WatchResponse:
        """Returns the first message with a field."""
        while True:
            message = await self.next()
            if getattr(message, name):
                return message

    def soon(self, name: str) -> asyncio.Future[WatchResponse]:
        """Reads on in a task, until a message has a field."""
        return asyncio.ensure_future(self.until(name))

    async def rest(self) -> list[WatchResponse]:
        async with asyncio.timeout(STEP):
            return [message_of(answer) async for answer in self._answers]

    async def close(self) -> None:
        await self._answers.aclose()


async def all_messages(manager: Manager, identity: Identity = READER, **fields: Any) -> list[WatchResponse]:
    return await Stream(manager, WatchRequest(**fields), identity).rest()


async def refusal(manager: Manager, identity: Identity = READER, **fields: Any) -> str:
    with pytest.raises(SpinCycleError) as caught:
        await Stream(manager, WatchRequest(**fields), identity).next()
    return caught.value.reason


async def report(store: Store, request_id: str, number: int = 1, ends: State | None = None) -> None:
    entry = a_log_entry(request_id, number=number, stdout="out", stderr="err", error="boom")
    refused = await store.apply_reports(
        RUNNER.runner_id, [a_report(request_id, entry, first=number, finished_jobs=number, ends=ends)]
    )
    assert not refused


async def test_the_stream_of_an_ended_request_has_its_tries_and_its_state_and_ends(manager: Manager) -> None:
    request = await create(manager.store)
    await report(manager.store, request.id)
    await report(manager.store, request.id, 2, ends=State.COMPLETE)
    (message,) = await all_messages(manager, request_id=request.id)
    assert [getattr(one, "try") for one in message.tries] == [1, 2]
    assert {(one.stdout, one.stderr, one.error) for one in message.tries} == {("", "", "boom")}
    (found,) = message.requests
    assert (found.id, found.state, found.finished_jobs) == (request.id, state_pb2.STATE_COMPLETE, 2)
    assert message.snapshot_complete
    assert not manager.hub.watched


async def is_watched(manager: Manager) -> None:
    """Waits until a stream has joined the hub."""
    async with asyncio.timeout(STEP):
        while not manager.hub.watched:  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0)


async def are_watching(manager: Manager, count: int) -> None:
    """Waits until streams of one request have joined the hub."""
    (watched,) = manager.hub._requests.values()
    async with asyncio.timeout(STEP):
        while len(watched.watchers) < count:  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0)


async def test_a_change_arrives_with_the_first_round_after_it(manager: Manager) -> None:
    request = await create(manager.store)
    stream = Stream(manager, WatchRequest(request_id=request.id))
    assert (await stream.next()).requests[0].state == state_pb2.STATE_RUNNING
    await report(manager.store, request.id)
    assert len((await stream.until("tries")).tries) == 1
    await report(manager.store, request.id, 2, ends=State.FAIL)
    last = await stream.rest()
    assert [one.state for message in last for one in message.requests] == [state_pb2.STATE_FAIL]
    assert not manager.hub.watched


async def test_a_filter_begins_with_the_newest_matching_requests_and_no_tries(manager: Manager) -> None:
    made = [(await create(manager.store, type=kind)).id for kind in ("nap", "nap", "other", "nap")]
    await report(manager.store, made[0])
    stream = Stream(manager, WatchRequest(filter=RequestFilter(type="nap", limit=2)))
    first = await stream.next()
    assert {one.id for one in first.requests} <= set(made)
    assert len(first.requests) == 2
    assert first.snapshot_complete
    assert not first.tries
    later = (await create(manager.store, type="nap")).id
    await create(manager.store, type="other")
    assert [one.id for one in (await stream.until("requests")).requests] == [later]
    await report(manager.store, made[0], 2)
    message = await stream.until("tries")
    assert [(one.request_id, getattr(one, "try")) for one in message.tries] == [(made[0], 2)]
    assert [one.id for one in message.requests] == [made[0]]
    await stream.close()


async def test_a_change_while_a_filter_is_resumed_is_not_lost(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await create(manager.store)
    stream = Stream(manager, WatchRequest())
    cursor = (await stream.until("snapshot_complete")).cursor
    await stream.close()
    looked, joined = FilterStream.can_resume, manager.hub.subscribe_to_filter

    async def can_resume(resumed: FilterStream) -> bool:
        """Finds that nothing has changed. Then something does."""
        answer = await looked(resumed)
        await report(manager.store, request.id, 1)
        return answer

    async def subscribe(joining: Subscription[News]) -> Position:
        target = await joined(joining)
        await report(manager.store, request.id, 2)
        return target

    monkeypatch.setattr(FilterStream, "can_resume", can_resume)
    monkeypatch.setattr(manager.hub, "subscribe_to_filter", subscribe)
    stream = Stream(manager, WatchRequest(cursor=cursor))
    seen: list[int] = []
    while 2 not in seen:
        seen += [getattr(one, "try") for one in (await stream.until("tries")).tries]
    assert seen == [1, 2]
    await stream.close()


async def test_changes_match_by_user_and_args(manager: Manager) -> None:
    stream = Stream(manager, WatchRequest(filter=RequestFilter(user="ann", args=["host=db1"])))
    assert (await stream.next()).snapshot_complete
    await create(manager.store, user="bob")
    right = (await create(manager.store, user="ann")).id
    assert [one.id for one in (await stream.until("requests")).requests] == [right]
    await stream.close()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"request_id": "nosuch"}, "REQUEST_NOT_FOUND"),
        ({"request_id": "nosuch", "filter": RequestFilter(type="nap")}, "BAD_FILTER"),
        ({"filter": RequestFilter(offset=1)}, "BAD_FILTER"),
        ({"filter": RequestFilter(limit=10_001)}, "BAD_FILTER"),
        ({"filter": RequestFilter(args=["nonsense"])}, "BAD_FILTER"),
        ({"filter": RequestFilter(args=["a=1"] * 51)}, "BAD_FILTER"),
        ({"cursor": "nonsense"}, "BAD_CURSOR"),
        ({"cursor": Cursor(1, position(w1=1)).text()}, "BAD_CURSOR"),
    ],
)
async def test_a_bad_request_is_refused(manager: Manager, fields: dict[str, Any], reason: str) -> None:
    assert await refusal(manager, **fields) == reason


async def test_a_filter_beside_a_request_id_is_named_as_the_invalid_field(manager: Manager) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await all_messages(manager, request_id="nosuch", filter=RequestFilter(type="nap"))
    assert caught.value.field == "filter"


async def test_a_cursor_that_is_too_old_gives_a_reset_and_the_current_state(manager: Manager) -> None:
    request = await create(manager.store)
    await report(manager.store, request.id, ends=State.COMPLETE)
    (message,) = await all_messages(manager, request_id=request.id)
    cursor = read_cursor(message.cursor, scope_of("request", request.id))
    assert cursor.position is not None
    old = replace(cursor.position, read_at=cursor.position.read_at - MAX_AGE - 1)
    reset, again = await all_messages(
        manager, request_id=request.id, cursor=replace(cursor, position=old).text()
    )
    assert reset.reset.reason == "CURSOR_EXPIRED"
    assert (again.tries, again.requests, again.snapshot_complete) == (message.tries, message.requests, True)


async def test_a_filter_begins_again_if_too_much_has_changed(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filter_stream, "MAX_CHANGED", 2)
    stream = Stream(manager, WatchRequest())
    cursor = (await stream.next()).cursor
    await stream.close()
    for _ in range(3):
        await create(manager.store)
    stream = Stream(manager, WatchRequest(cursor=cursor))
    assert (await stream.next()).reset.reason == "CURSOR_EXPIRED"
    again = await stream.next()
    assert len(again.requests) == 3
    assert again.snapshot_complete
    await stream.close()


async def test_a_reset_can_be_resumed_too(manager: Manager) -> None:
    request = await create(manager.store)
    await report(manager.store, request.id, ends=State.COMPLETE)
    bad = Cursor(scope_of("request", request.id), position(w1=99)).text()
    reset, _ = await all_messages(manager, request_id=request.id, cursor=bad)
    (again,) = await all_messages(manager, request_id=request.id, cursor=reset.cursor)
    assert again.snapshot_complete
    assert len(again.tries) == 1


async def test_there_are_at_most_so_many_watchers(store: Store) -> None:
    async with watched(store, max_watchers=1) as manager:
        stream = Stream(manager, WatchRequest())
        await stream.next()
        assert await refusal(manager) == "TOO_MANY_WATCHERS"
        await stream.close()
        stream = Stream(manager, WatchRequest())
        await stream.next()
        await stream.close()


async def test_a_slow_reader_is_disconnected_and_resumes_from_its_cursor(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "MAX_NEWS", 2)
    monkeypatch.setattr(hub, "LONGEST_PAUSE", 0.0)
    request = await create(manager.store)
    stream = Stream(manager, WatchRequest(request_id=request.id))
    cursor = (await stream.next()).cursor
    await report(manager.store, request.id, 1)
    seen = await stream.until("tries")
    for number in range(2, 6):
        await report(manager.store, request.id, number)
        await manager.hub.position()  # a round that the reader does not read
    with pytest.raises(SpinCycleError) as caught:
        await stream.rest()
    assert caught.value.reason == "WATCHER_TOO_SLOW"
    await report(manager.store, request.id, 6, ends=State.COMPLETE)
    rest = await all_messages(manager, request_id=request.id, cursor=seen.cursor)
    assert [getattr(one, "try") for message in rest for one in message.tries] == [2, 3, 4, 5, 6]
    rest = await all_messages(manager, request_id=request.id, cursor=cursor)
    assert [getattr(one, "try") for message in rest for one in message.tries] == [1, 2, 3, 4, 5, 6]


async def test_a_pruned_request_is_gone(manager: Manager, store: Store) -> None:
    request = await create(store)
    single = Stream(manager, WatchRequest(request_id=request.id))
    both = Stream(manager, WatchRequest(filter=RequestFilter(type="stop-host")))
    other = Stream(manager, WatchRequest(filter=RequestFilter(type="other")))
    cursors = [(await stream.next()).cursor for stream in (single, both, other)]
    await single.close()
    await both.close()
    live = Stream(manager, WatchRequest(filter=RequestFilter(user="finch")))
    await live.next()
    await store.apply_reports(RUNNER.runner_id, [a_report(request.id, ends=State.COMPLETE)])
    prune(store)
    assert (await live.until("gone")).gone == [request.id]
    await live.close()
    single = Stream(manager, WatchRequest(request_id=request.id, cursor=cursors[0]))
    assert [list(message.gone) for message in await single.rest()] == [[request.id]]
    both = Stream(manager, WatchRequest(filter=RequestFilter(type="stop-host"), cursor=cursors[1]))
    assert (await both.until("gone")).gone == [request.id]
    await both.close()
    await create(store, type="other")
    assert not (await other.next()).gone
    await other.close()
    assert await refusal(manager, request_id=request.id) == "REQUEST_NOT_FOUND"


def prune(store: Store) -> None:
    """Deletes all ended requests, in another thread's place: the store keeps its connections."""
    retention = Retention(str(store._engine.url), OPTIONS)
    assert retention.prune(retention.now() + 10**15, lambda *_: None, lambda: False)
    retention.close()


async def test_the_stream_of_a_request_ends_when_it_is_pruned(manager: Manager, store: Store) -> None:
    request = await create(store)
    stream = Stream(manager, WatchRequest(request_id=request.id))
    await stream.next()
    engine = engine_of(str(store._engine.url))
    with engine.begin() as connection:
        connection.execute(delete(requests).where(requests.c.request_id == request.id))
    engine.dispose()
    rest = asyncio.ensure_future(stream.rest())
    await is_watched(manager)
    manager.hub.gone([request.id])
    assert [list(message.gone) for message in await rest] == [[request.id]]


def guarded(*operations: str, role: str = "reader") -> Permissions:
    entries = tuple(AclSpec(role, admin=False, ops=(one,), position=NOWHERE) for one in operations)
    logs = AclSpec("logger", admin=False, ops=("log",), position=NOWHERE)
    spec = replace(sequence("stop-host", node("job")), acl=(*entries, logs), request=True)
    return Permissions(AccessLists(specs(spec)), reads_follow_lists=True)


async def test_only_a_caller_who_may_view_the_request_can_watch_it(store: Store) -> None:
    request = await create(store)
    await report(store, request.id, ends=State.COMPLETE)
    async with watched(store, guarded("view")) as manager:
        assert await refusal(manager, STRANGER, request_id=request.id) == "ACCESS_DENIED"
        (message,) = await all_messages(manager, READER, request_id=request.id)
        assert message.requests
        assert not message.tries, "READER may not see the log"
        (message,) = await all_messages(manager, LOGGER, request_id=request.id)
        assert len(message.tries) == 1


async def test_a_filter_leaves_out_what_the_caller_may_not_view(store: Store) -> None:
    async with watched(store, guarded("view")) as manager:
        stream = Stream(manager, WatchRequest(), STRANGER)
        reader = Stream(manager, WatchRequest(), READER)
        logger = Stream(manager, WatchRequest(), LOGGER)
        for one in (stream, reader, logger):
            await one.next()
        hidden = await create(store)
        await report(store, hidden.id)
        assert (await logger.until("tries")).tries[0].request_id == hidden.id
        assert (await reader.until("requests")).requests[0].id == hidden.id
        shown = await create(store, type="open")
        assert [one.id for one in (await stream.next()).requests] == [shown.id]
        for one in (stream, reader, logger):
            await one.close()


async def test_a_caller_who_loses_the_permission_loses_the_stream(store: Store) -> None:
    permissions = guarded("view")
    request = await create(store)
    async with watched(store, permissions) as manager:
        stream = Stream(manager, WatchRequest(request_id=request.id), READER)
        await stream.next()
        permissions.use(guarded("view", role="nobody")._lists)
        await report(store, request.id)
        with pytest.raises(SpinCycleError) as caught:
            await stream.rest()
        assert caught.value.reason == "ACCESS_DENIED"


async def test_an_idle_stream_has_heartbeats_whose_cursor_moves(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT", 0.05)
    request = await create(manager.store)
    for watch in (WatchRequest(request_id=request.id), WatchRequest(filter=RequestFilter(type="other"))):
        stream = Stream(manager, watch)
        first = await stream.next()
        await create(manager.store)
        await manager.hub.position()
        beat = await stream.next()
        assert beat == WatchResponse(cursor=beat.cursor)
        assert beat.cursor != first.cursor
        await stream.close()


async def test_changes_that_a_filter_excludes_delay_no_heartbeat(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT", 1.0)
    stream = Stream(manager, WatchRequest(filter=RequestFilter(type="other")))
    await stream.next()
    beat = asyncio.ensure_future(stream.next())
    async with asyncio.timeout(STEP):
        while not beat.done():
            await create(manager.store)
            await asyncio.sleep(0.01)
    assert beat.result() == WatchResponse(cursor=beat.result().cursor)
    await stream.close()


async def test_a_round_with_too_many_changes_is_read_by_each_watcher(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spincycle_server.store.changes.MAX_ROWS", 1)
    made = [await create(manager.store) for _ in range(2)]
    single = Stream(manager, WatchRequest(request_id=made[0].id))
    everything = Stream(manager, WatchRequest())
    await single.next()
    await everything.next()
    entries = [[a_log_entry(one.id, number=number) for number in (1, 2)] for one in made]
    reports = [
        a_report(one.id, *some, finished_jobs=2, ends=State.COMPLETE)
        for one, some in zip(made, entries, strict=True)
    ]
    assert not await manager.store.apply_reports(RUNNER.runner_id, reports)
    tries = [one for message in await single.rest() for one in message.tries]
    assert [getattr(one, "try") for one in tries] == [1, 2]
    seen: set[tuple[str, int]] = set()
    while len(seen) < 4:
        seen |= {(one.request_id, getattr(one, "try")) for one in (await everything.until("tries")).tries}
    await everything.close()


async def test_requests_that_an_original_wrote_have_their_tries_in_the_first_messages(
    manager: Manager,
) -> None:
    request = await create(manager.store)
    await report(manager.store, request.id, ends=State.COMPLETE)
    engine = engine_of(str(manager.store._engine.url))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE requests SET change_stamp = NULL")
        connection.exec_driver_sql("UPDATE job_log SET change_stamp = NULL, epoch = NULL, ordinal = NULL")
    engine.dispose()
    (message,) = await all_messages(manager, request_id=request.id)
    assert len(message.tries) == 1
    assert message.requests[0].state == state_pb2.STATE_COMPLETE


async def test_a_large_request_comes_in_many_small_messages_and_resumes_after_each(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_stream, "PAGE", 30)
    monkeypatch.setattr("spincycle_server.watch.pieces.MAX_BYTES", 1000)
    request = await create(manager.store)
    entries = [a_log_entry(request.id, number=number) for number in range(1, 101)]
    await manager.store.apply_reports(
        RUNNER.runner_id, [a_report(request.id, *entries, finished_jobs=1, ends=State.COMPLETE)]
    )
    messages = await all_messages(manager, request_id=request.id)
    assert len(messages) > 5
    assert [message.snapshot_complete for message in messages] == [False] * (len(messages) - 1) + [True]
    numbers = [[getattr(one, "try") for one in message.tries] for message in messages]
    assert list(chain.from_iterable(numbers)) == list(range(1, 101))
    for number, message in enumerate(messages[:-1]):
        rest = await all_messages(manager, request_id=request.id, cursor=message.cursor)
        left = [getattr(one, "try") for message in rest for one in message.tries]
        assert left == list(chain.from_iterable(numbers[number + 1 :]))
        assert rest[-1].requests[0].state == state_pb2.STATE_COMPLETE
        assert rest[-1].snapshot_complete


async def test_a_watcher_that_leaves_is_forgotten(manager: Manager) -> None:
    request = await create(manager.store)
    stream = Stream(manager, WatchRequest(request_id=request.id))
    await stream.next()
    waiting = asyncio.ensure_future(stream.next())
    await is_watched(manager)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await stream.close()
    assert not manager.hub.watched


async def test_a_request_that_ends_between_two_reads_shows_its_last_tries_first(
    manager: Manager, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await create(store)
    read, is_done = store.tries_after, False

    async def read_then_end(*arguments: Any) -> Any:
        nonlocal is_done
        found = await read(*arguments)
        if not is_done:
            is_done = True
            await report(store, request.id, ends=State.COMPLETE)
        return found

    monkeypatch.setattr(store, "tries_after", read_then_end)
    watcher = Watcher(request.id)
    async with asyncio.timeout(STEP):
        await watcher.follow(manager)
    assert (len(watcher.tries[request.id]), watcher.states[request.id]) == (1, State.COMPLETE)
    assert not watcher.too_early
    assert watcher.snapshots == 1


async def test_a_request_that_ends_while_a_filter_begins_shows_its_last_tries_first(
    manager: Manager, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await create(store)
    find = store.find_requests

    async def end_then_find(*arguments: Any, **named: Any) -> Any:
        await report(store, request.id, ends=State.COMPLETE)
        return await find(*arguments, **named)

    monkeypatch.setattr(store, "find_requests", end_then_find)
    watcher = Watcher(filter=RequestFilter(type="stop-host"))
    stream = Stream(manager, watcher.request())
    while watcher.states.get(request.id) != State.COMPLETE:
        watcher.add(await stream.next())
    await stream.close()
    assert len(watcher.tries[request.id]) == 1
    assert not watcher.too_early


async def test_watchers_of_a_request_share_a_message_unless_they_may_see_more(store: Store) -> None:
    request = await create(store)
    async with watched(store, guarded("view")) as manager:
        streams = [Stream(manager, WatchRequest(request_id=request.id), one) for one in (READER, LOGGER) * 2]
        for stream in streams:
            await stream.next()
        waiting = [asyncio.ensure_future(stream.answer()) for stream in streams]
        await are_watching(manager, len(streams))
        await report(store, request.id)
        answers = [await one for one in waiting]
        assert all(isinstance(answer, SharedMessage) for answer in answers)
        assert answers[0] is answers[2]
        assert answers[1] is answers[3]
        assert [len(message_of(answer).tries) for answer in answers[:2]] == [0, 1]
        assert message_of(answers[0]).cursor == message_of(answers[1]).cursor
        for stream in streams:
            await stream.close()


async def test_watchers_of_a_filter_share_a_message_if_they_may_see_everything(store: Store) -> None:
    wanted = RequestFilter(type="stop-host")
    for permissions, shares in ((NO_LISTS, True), (guarded("view"), False)):
        async with watched(store, permissions) as manager:
            streams = [Stream(manager, WatchRequest(filter=wanted)) for _ in range(2)]
            other = Stream(manager, WatchRequest())
            for stream in (*streams, other):
                await stream.next()
            waiting = [asyncio.ensure_future(stream.answer()) for stream in (*streams, other)]
            async with asyncio.timeout(STEP):
                while len(manager.hub._of_filters) < len(waiting):  # noqa: ASYNC110 (it has no event)
                    await asyncio.sleep(0)
            await create(store)
            answers = [await one for one in waiting]
            assert (answers[0] is answers[1]) is shares
            first, second, third = map(message_of, answers)
            assert first == second
            assert first.requests == third.requests
            assert first.cursor != third.cursor, "a cursor belongs to its filter"
            for stream in (*streams, other):
                await stream.close()


async def test_running_jobs_follow_changes_that_are_too_large_for_one_message(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MANY_WATCHERS", 1)
    monkeypatch.setattr("spincycle_server.watch.pieces.MAX_BYTES", 0)
    request = await create(manager.store)
    stream = Stream(manager, WatchRequest(request_id=request.id))
    await stream.next()
    waiting = stream.soon("running")
    await is_watched(manager)
    await report(manager.store, request.id)
    manager.hub.show_running(RunningJobs(request_id=request.id, jobs=[JobStatus(job_id="next")]))
    message = await waiting
    assert [job.job_id for job in message.running[0].jobs] == ["next"]
    assert read_cursor(message.cursor, scope_of("request", request.id)).target is None, "it has everything"
    await stream.close()
