"""The oldest requests that a runner can take are found, also behind many that no runner can take."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spincycle_grpc.state import State
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_server.capabilities import Capabilities, Requirement
from spincycle_server.request_manager.runners import Runners
from spincycle_server.request_manager.startable_requests import find_startable
from spincycle_server.store import Store
from tests.store.samples import RUNNER, a_chain, a_request, create

NEEDS = [Requirement(frozenset(types)) for types in ("a", "b", "c", "ab", "cd")]


async def create_for(store: Store, requirement: Requirement | None, second: int = 0) -> str:
    request = a_request()
    request.created_at.seconds += second
    await store.create_request(
        request, CreateRequest(type=request.type), a_chain(request.id), None, requirement=requirement
    )
    return request.id


async def runners_that_know(store: Store, types: str) -> Runners:
    runners = Runners(store)
    runners.add(RUNNER, Capabilities(frozenset(types)))
    return runners


async def found(store: Store, runners: Runners, limit: int) -> list[str]:
    startable = await find_startable(store, runners, State.PENDING, limit)
    return [one.request_id for one in startable.requests]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 4), max_size=12), st.sampled_from(["", "a", "ab", "bc"]), st.integers(1, 5))
async def test_as_a_plain_search_finds_them(store: Store, needs: list[int], known: str, limit: int) -> None:
    """The model reads all requests in order, and takes the first that the runner can run."""
    made = [(await create_for(store, NEEDS[need], second), NEEDS[need]) for second, need in enumerate(needs)]
    runners = await runners_that_know(store, known)
    expected = [request_id for request_id, requirement in made if requirement.types <= set(known)]
    try:
        startable = await found(store, runners, limit)
        # A page with fewer rows than the limit is complete. Otherwise, up to `limit` are found.
        assert startable == expected[:limit]
    finally:
        for request_id, _ in made:
            await store.stop_unassigned(request_id)
        await runners.close()


async def test_requests_that_cannot_start_are_not_read_one_by_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for second in range(50):
        await create_for(store, NEEDS[second % 2 + 1], second)
    wanted = [await create_for(store, NEEDS[0], 100 + second) for second in range(3)]
    runners = await runners_that_know(store, "a")
    reads: list[int] = []
    resolve = store.requirements.resolve

    async def counted(rows: object) -> object:
        reads.append(len(rows))  # type: ignore[arg-type]
        return await resolve(rows)  # type: ignore[arg-type]

    monkeypatch.setattr(store.requirements, "resolve", counted)
    assert await found(store, runners, 10) == wanted
    assert reads == [10, 3]
    await runners.close()


async def test_requests_of_a_full_runner_do_not_hide_those_of_others(store: Store) -> None:
    for second in range(5):
        await create_for(store, NEEDS[0], second)
    wanted = await create_for(store, NEEDS[1], 10)
    runners = await runners_that_know(store, "a")
    other = type(RUNNER)(runner_id="r9", url="http://127.0.0.1:1", grpc_address="127.0.0.1:2")
    runners.add(other, Capabilities(frozenset("b")))
    runners.mark_full(RUNNER.runner_id)
    assert await found(store, runners, 3) == [wanted]
    await runners.close()


async def test_requests_without_a_requirement_are_found_behind_others(store: Store) -> None:
    for second in range(5):
        await create_for(store, NEEDS[2], second)
    derived = await create(store, None)
    runners = await runners_that_know(store, "".join(()))
    runners.add(RUNNER, Capabilities(frozenset({"noop", "nap"})))
    assert await found(store, runners, 3) == [derived.id]
    await runners.close()


async def test_runners_are_asked_about_the_types_of_blocked_requests(store: Store) -> None:
    await create_for(store, NEEDS[4])
    await create_for(store, NEEDS[0])
    runners = await runners_that_know(store, "a")
    await found(store, runners, 10)
    assert list(runners.asked_types.message.types) == ["c", "d"]
    await runners.close()
