"""The changes between two positions, on each database, with two stores that commit at once."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

from spincycle_grpc.state import FINAL_STATES, State
from spincycle_server.store import Store
from spincycle_server.store.changes import Changes
from spincycle_server.store.positions import Position
from tests.store.managers import two_stores
from tests.store.samples import RUNNER, a_log_entry, a_report, create

CHAINS = 24
TRIES = 8


class Seen:
    """What a reader of changes has seen.

    Attributes:
        tries: The numbers of the tries of each request, in the order of their arrival.
        states: The newest state of each request.
        too_early: The requests that ended before their last try arrived.
    """

    def __init__(self) -> None:
        self.tries: dict[str, list[int]] = defaultdict(list)
        self.states: dict[str, int] = {}
        self.too_early: list[str] = []

    def add(self, changes: Changes) -> None:
        assert changes.is_complete
        for one in changes.tries:
            self.tries[one.key.request_id].append(one.key.ordinal)
        for request_id, request in changes.requests.items():
            self.states[request_id] = request.state
            if request.state in FINAL_STATES and len(self.tries[request_id]) < TRIES:
                self.too_early.append(request_id)


async def run_chain(stores: tuple[Store, Store], chance: random.Random) -> str:
    """Creates a request and reports its tries one by one, each to any store, some to both at once."""
    request = await create(chance.choice(stores))
    for number in range(1, TRIES + 1):
        is_last = number == TRIES
        state = State.COMPLETE if chance.random() < 0.7 else State.FAIL
        report = a_report(
            request.id,
            a_log_entry(request.id, number=number, state=state),
            first=number,
            finished_jobs=number // 2,
            ends=State.COMPLETE if is_last else None,
        )
        asked = stores if chance.random() < 0.3 else [chance.choice(stores)]
        for refused in await asyncio.gather(
            *(store.apply_reports(RUNNER.runner_id, [report]) for store in asked)
        ):
            assert not refused
    return request.id


async def test_each_try_arrives_once_and_in_order_and_the_last_state_arrives(migrated_url: str) -> None:
    chance = random.Random(13)
    seen = Seen()
    async with two_stores(migrated_url) as stores:
        await stores[0].renew_runner(RUNNER, 60.0, draining=False)
        position: Position = (await stores[0].read_changes(None, None)).position
        chains = asyncio.gather(*(run_chain(stores, chance) for _ in range(CHAINS)))
        is_last = False
        while not is_last:
            is_last = chains.done()
            changes = await chance.choice(stores).read_changes(position, None)
            seen.add(changes)
            position = changes.position
        ids = await chains
    assert dict(seen.tries) == {request_id: list(range(1, TRIES + 1)) for request_id in ids}
    assert seen.states == dict.fromkeys(ids, State.COMPLETE)
    assert not seen.too_early
