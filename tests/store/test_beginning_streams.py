"""What streams of single requests begin with, on each database: several share the statements."""

from __future__ import annotations

import asyncio
import random

import pytest

from spincycle_grpc.state import State
from spincycle_server.store import Store, changes
from tests.store.samples import RUNNER, a_log_entry, a_report, create

pytestmark = pytest.mark.parametrize("store", ["none"], indirect=True)  # Nothing here is about commits.

ABSENT = "9vb2d3q0c7k5r1n8m4tg"


async def with_tries(store: Store, tries: int, chance: random.Random) -> str:
    """Stores a request with tries, some of which an original has recorded. Returns its id."""
    request = await create(store)
    for number in chance.sample(range(1, tries + 1), tries):
        entry = a_log_entry(request.id, number=number, finished_at=chance.randrange(1, 2**40))
        if chance.random() < 0.3:
            await store.record_log(entry)
        else:
            assert not await store.apply_reports(
                RUNNER.runner_id, [a_report(request.id, entry, first=number)]
            )
    return request.id


async def read_alone(store: Store, request_id: str) -> list[changes.Try]:
    return await store._reader.read(changes.tries_after, [request_id], None, None, 1000)


async def test_each_stream_begins_with_the_tries_of_its_request_in_order(store: Store) -> None:
    chance = random.Random(7)
    await store.renew_runner(RUNNER, 60.0, draining=False)
    ids = [await with_tries(store, tries, chance) for tries in (0, 1, 5, 9)]
    found = await asyncio.gather(
        *(store.tries_after([request_id], None, None, 1000) for request_id in (*ids, ids[2], ABSENT))
    )
    assert [*map(len, found)] == [0, 1, 5, 9, 5, 0]
    for request_id, tries in zip(ids, found, strict=False):
        assert tries == await read_alone(store, request_id)
    assert await store.tries_after([ids[3]], None, None, 4) == found[3][:4]


async def test_many_tries_are_read_for_each_request_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MAX_FEW", 5)
    await store.renew_runner(RUNNER, 60.0, draining=False)
    ids = [await with_tries(store, tries, random.Random(7)) for tries in (3, 2, 6)]
    found = await asyncio.gather(*(store.tries_after([request_id], None, None, 1000) for request_id in ids))
    assert [*map(len, found)] == [3, 2, 6]


async def test_each_caller_gets_a_request_of_its_own_with_the_reason_why_it_waits(store: Store) -> None:
    store.reasons.of_runners = lambda state, needs, runner_id: "no job runner is free"
    waiting = await create(store, None)
    running = await create(store)
    found = await asyncio.gather(
        *(store.stamped_requests([request_id]) for request_id in (waiting.id, waiting.id, running.id, ABSENT))
    )
    assert [[*one] for one in found] == [[waiting.id], [waiting.id], [running.id], []]
    first, second = (one[waiting.id].request for one in found[:2])
    assert first.waiting == second.waiting == "no job runner is free"
    assert first is not second
    assert State(found[2][running.id].request.state) is State.RUNNING
    alone = await store._reader.read(changes.stamped_requests, [running.id])
    assert found[2][running.id].stamp == alone[running.id].stamp
