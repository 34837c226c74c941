"""What requests need of a runner: stored once, derived where it is missing, and the requests that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.engine import Connection, Engine

from spincycle_grpc.state import State
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_server.capabilities import NEEDS_NOTHING, Requirement
from spincycle_server.store import Store, requirement_rows, requirements
from spincycle_server.store.requirement_rows import WaitingRow
from spincycle_server.store.requirements import Requirements, WaitingPage
from spincycle_server.store.schema import request_archives
from tests.store.samples import OTHER_RUNNER, RUNNER, a_chain, a_report, a_request, a_suspended_chain, create

NAP = Requirement(frozenset({"noop", "nap"}))
DRAIN = Requirement(frozenset({"drain"}), frozenset({("zone", "a")}))
BOTH = Requirement(frozenset({"drain", "nap"}))


async def create_for(store: Store, requirement: Requirement, age: int) -> str:
    """Stores a PENDING request, created some seconds before the others. Returns its id."""
    request = a_request()
    request.created_at.seconds -= age
    await store.create_request(
        request, CreateRequest(type=request.type), a_chain(request.id), None, requirement=requirement
    )
    return request.id


class TestStoredRequirements:
    async def test_a_request_has_the_requirement_that_it_was_created_with(self, store: Store) -> None:
        request_id = await create_for(store, DRAIN, 0)
        assert await store.requirements.of(request_id) == DRAIN
        assert await Requirements(store._reader, store._writer).of(request_id) == DRAIN

    async def test_a_requirement_is_stored_once(self, store: Store) -> None:
        for _ in range(3):
            await create_for(store, DRAIN, 0)
        await Requirements(store._reader, store._writer).save(DRAIN)
        with store._engine.connect() as connection:
            assert connection.execute(text("SELECT COUNT(*) FROM requirements")).scalar() == 1

    async def test_a_missing_requirement_is_derived_from_the_chain_and_stored(self, store: Store) -> None:
        made = await create(store, None)
        assert await store.requirements.of(made.id) == NAP
        with store._engine.begin() as connection:
            connection.execute(update(request_archives).values(job_chain=b"{}"))
        assert await store.requirements.of(made.id) == NAP

    async def test_a_request_whose_chain_cannot_be_read_needs_nothing(self, store: Store) -> None:
        made = await create(store, None)
        with store._engine.begin() as connection:
            connection.execute(update(request_archives).values(job_chain=b'{"jobs":'))
        assert await store.requirements.of(made.id) == NEEDS_NOTHING

    async def test_deriving_leaves_the_rest_of_the_row(self, store: Store) -> None:
        made = await create(store, None)
        before = await store.get_request(made.id, with_job_chain=True)
        await store.requirements.of(made.id)
        assert await store.get_request(made.id, with_job_chain=True) == before


def needs_of(page: WaitingPage) -> tuple[list[tuple[str, Requirement]], bool]:
    """Returns the ids and the needs of the requests on a page, and whether it is the last one."""
    return [(one.request_id, one.requirement) for one in page.requests], page.is_last


class TestWaitingRequests:
    async def test_the_oldest_come_first_with_what_they_need(self, store: Store) -> None:
        young, old = await create_for(store, NAP, 1), await create_for(store, DRAIN, 2)
        page = await store.requirements.oldest_waiting(State.PENDING, 10)
        assert needs_of(page) == ([(old, DRAIN), (young, NAP)], True)
        assert page.requests[0].created_at < page.requests[1].created_at
        page = await store.requirements.oldest_waiting(State.PENDING, 1)
        assert needs_of(page) == ([(old, DRAIN)], False)

    async def test_the_oldest_of_some_requirements_are_found_behind_others(self, store: Store) -> None:
        for age in range(100, 110):
            await create_for(store, DRAIN, age)
        wanted = [await create_for(store, (NAP, BOTH)[age % 2], age) for age in (9, 8, 7, 6)]
        ids = [NAP.requirement_id, BOTH.requirement_id]
        found = await store.requirements.oldest_waiting_for(State.PENDING, ids, 3)
        assert [one.request_id for one in found] == wanted[:3]
        assert [one.requirement for one in found] == [BOTH, NAP, BOTH]

    async def test_the_requirements_of_waiting_requests_are_each_found_once(self, store: Store) -> None:
        for age in range(6):
            await create_for(store, (NAP, DRAIN)[age % 2], age)
        unknown = await create(store, None)
        await create(store, RUNNER)
        found = await store.requirements.waiting(State.PENDING)
        assert found == {"": NEEDS_NOTHING, NAP.requirement_id: NAP, DRAIN.requirement_id: DRAIN}
        await store.requirements.of(unknown.id)
        assert "" not in await store.requirements.waiting(State.PENDING)
        assert await store.requirements.waiting(State.SUSPENDED) == {}

    async def test_waiting_requests_are_counted_up_to_a_limit(self, store: Store) -> None:
        for age in range(5):
            await create_for(store, (NAP, DRAIN)[age % 2], age)
        counts = await store.requirements.count_waiting(State.PENDING, 10)
        assert counts == {NAP.requirement_id: 3, DRAIN.requirement_id: 2}
        assert sum((await store.requirements.count_waiting(State.PENDING, 4)).values()) == 4

    async def test_a_page_of_underived_requests_makes_progress(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(requirements, "DERIVED_AT_ONCE", 2)
        made = [(await create(store, None)).id for _ in range(5)]
        lengths = [
            len((await store.requirements.oldest_waiting(State.PENDING, 9)).requests) for _ in range(3)
        ]
        assert lengths == [2, 4, 5]
        page = await store.requirements.oldest_waiting(State.PENDING, 9)
        assert sorted(one.request_id for one in page.requests) == sorted(made)

    async def test_suspended_requests_keep_their_requirement(self, store: Store) -> None:
        made = a_request()
        await store.create_request(
            made, CreateRequest(type=made.type), a_chain(made.id), RUNNER, requirement=DRAIN
        )
        await store.apply_reports("r1", [a_report(made.id, ends=a_suspended_chain(made.id))])
        page = await store.requirements.oldest_waiting(State.SUSPENDED, 10)
        assert needs_of(page) == ([(made.id, DRAIN)], True)

    async def test_lost_requests_are_found_without_some_requirements(self, store: Store) -> None:
        made = [a_request() for _ in range(3)]
        for request, requirement in zip(made, (DRAIN, NAP, DRAIN), strict=True):
            await store.create_request(
                request,
                CreateRequest(type=request.type),
                a_chain(request.id),
                OTHER_RUNNER,
                requirement=requirement,
            )
        lost = await store.lost_requests(10, [DRAIN.requirement_id])
        assert [one.waiting for one in lost] == [WaitingRow(made[1].id, NAP.requirement_id)]
        assert len(await store.lost_requests(10)) == 3


def plans_of(engine: Engine, read: Callable[[Connection], object]) -> list[str]:
    """Returns the plan of each query that a function executes."""
    executed: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        if statement.startswith("SELECT"):
            executed.append((statement, parameters))

    explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    with engine.connect() as connection:
        event.listen(connection, "before_cursor_execute", note)
        read(connection)
        event.remove(connection, "before_cursor_execute", note)
        found = [connection.exec_driver_sql(f"{explain} {one}", values) for one, values in executed]
        return [" ".join(map(str, plan.all())) for plan in found]


@pytest.mark.parametrize("store", ["none"], indirect=True)  # Failing commits change no plan.
async def test_looks_for_waiting_requests_use_the_index_of_requirements(store: Store) -> None:
    await asyncio.gather(*(create_for(store, DRAIN if age > 2 else NAP, age) for age in range(300)))
    if store._engine.dialect.name == "postgresql":
        # Otherwise the plan depends on whether autovacuum has counted the rows yet.
        with store._engine.begin() as connection:
            connection.execute(text("ANALYZE requests"))
    plans = [
        *plans_of(
            store._engine,
            lambda connection: requirement_rows.oldest_waiting_for(
                connection, State.PENDING, [NAP.requirement_id], 200
            ),
        ),
        *plans_of(
            store._engine,
            lambda connection: requirement_rows.waiting_requirement_ids(connection, State.PENDING),
        ),
    ]
    assert len(plans) == 5  # One page; the id ""; and the first, second and third id after it.
    for plan in plans:
        assert "requests_requirement" in plan
        assert "filesort" not in plan
        assert "TEMP B-TREE" not in plan
