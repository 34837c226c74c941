"""The PENDING requests: blocked ones have their own limit, and delay no others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from spincycle_grpc.errors import ResourceExhaustedError
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.runner_reports_pb2 import RunnerInfo
from spincycle_server.capabilities import NEEDS_NOTHING, Capabilities, Requirement
from spincycle_server.request_manager.pending_requests import PendingRequests
from spincycle_server.request_manager.runners import Runners
from spincycle_server.store import Store
from spincycle_server.store.requirements import WaitingPage, WaitingRequest
from tests.limits import STEP
from tests.store.samples import RUNNER, a_chain, a_request

A, B, X = (Requirement(frozenset(types)) for types in "abx")
OTHER = RunnerInfo(runner_id="r9", url="http://127.0.0.1:1", grpc_address="127.0.0.1:2")


class Dispatched:
    """Takes all requests that it is offered, up to a number."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.requests: list[WaitingRequest] = []

    async def __call__(self, waiting: Sequence[WaitingRequest]) -> Sequence[WaitingRequest]:
        taken = waiting[: self.most]
        self.requests += taken
        return taken


@pytest.fixture
def runners(store: Store) -> Runners:
    """Two runners that each know one type."""
    runners = Runners(store)
    runners.add(RUNNER, Capabilities(frozenset("a")))
    runners.add(OTHER, Capabilities(frozenset("b")))
    return runners


def pending_of(
    store: Store, runners: Runners, dispatch: Dispatched | None = None, *, limit: int = 3, blocked: int = 2
) -> PendingRequests:
    return PendingRequests(
        store, runners, dispatch or Dispatched(), limit=limit, blocked_limit=blocked, interval=3600
    )


async def create_for(store: Store, requirement: Requirement) -> str:
    request = a_request()
    await store.create_request(
        request, CreateRequest(type=request.type), a_chain(request.id), None, requirement=requirement
    )
    return request.id


async def test_a_new_request_waits_only_behind_those_that_need_the_same_runners(
    store: Store, runners: Runners
) -> None:
    pending = pending_of(store, runners)
    pending.add(X)
    assert not pending.any
    pending.add(A)
    assert pending.any
    assert [pending.compete_with(one) for one in (A, B, X)] == [True, False, False]
    runners.add(OTHER, Capabilities(frozenset("abx")))
    assert [pending.compete_with(one) for one in (A, B, X)] == [True, True, True]


async def test_blocked_requests_do_not_count_against_the_limit_of_the_others(
    store: Store, runners: Runners
) -> None:
    pending = pending_of(store, runners)
    for _ in range(5):
        pending.add(X)
    pending.check_limit()
    pending.check_blocked_limit(A)
    with pytest.raises(
        ResourceExhaustedError, match="no job runner knows the job type x, and the limit"
    ) as why:
        pending.check_blocked_limit(X)
    assert why.value.reason == "TOO_MANY_BLOCKED"
    for _ in range(3):
        pending.add(B)
    with pytest.raises(ResourceExhaustedError) as why:
        pending.check_limit()
    assert why.value.reason == "TOO_MANY_WAITING"


async def test_a_new_request_that_the_loop_has_read_already_counts_once(store: Store) -> None:
    pending = pending_of(store, Runners(store))
    created = [await create_for(store, NEEDS_NOTHING) for _ in range(2)]
    await pending._dispatch_page()
    for request_id in created:
        pending.add(NEEDS_NOTHING, request_id)
    pending.check_limit()
    pending.add(NEEDS_NOTHING, await create_for(store, NEEDS_NOTHING))
    with pytest.raises(ResourceExhaustedError):
        pending.check_limit()


async def test_a_request_that_is_added_while_others_are_read_is_not_forgotten(
    store: Store, runners: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read may miss it, and the next one may be seconds away."""
    await create_for(store, A)
    pending = pending_of(store, runners)
    pending.add(A)
    read, late = store.requirements.oldest_waiting, ""

    async def read_and_add(state: State, limit: int) -> WaitingPage:
        nonlocal late
        page = await read(state, limit)
        if not late:
            late = await create_for(store, A)
            pending.add(A, late)
        return page

    monkeypatch.setattr(store.requirements, "oldest_waiting", read_and_add)
    pending._wake.clear()
    assert await pending._dispatch_page()
    assert pending.any
    assert pending.waiting_for(RUNNER.runner_id) == 1
    assert await pending._dispatch_page()
    assert not pending.any


async def test_without_any_runner_all_requests_count_as_waiting(store: Store) -> None:
    pending = pending_of(store, Runners(store))
    for _ in range(3):
        pending.add(X)
    pending.check_blocked_limit(X)
    with pytest.raises(ResourceExhaustedError) as why:
        pending.check_limit()
    assert why.value.reason == "TOO_MANY_WAITING"


async def test_a_page_counts_what_stays(store: Store, runners: Runners) -> None:
    for requirement in (X, X, A, B):
        await create_for(store, requirement)
    dispatch = Dispatched(most=1)
    pending = pending_of(store, runners, dispatch)
    assert await pending._dispatch_page()
    assert sorted(pending._counts.values()) == [1, 2]
    dispatch.most = 0
    assert not await pending._dispatch_page()
    assert pending._counts == {X: 2, A: 1, B: 1}


async def test_more_than_a_page_is_counted_in_the_store(
    store: Store, runners: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spincycle_server.request_manager.pending_requests.PAGE", 2)
    for requirement in (X, X, X, A, B):
        await create_for(store, requirement)
    dispatch = Dispatched()
    pending = pending_of(store, runners, dispatch)
    assert await pending._dispatch_page()
    assert {one.requirement for one in dispatch.requests} == {A, B}
    assert pending._counts == {X: 3}


async def test_places_are_wanted_for_the_requests_that_a_runner_can_run_after_each_look(
    store: Store, runners: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    for requirement in (A, A, X):
        await create_for(store, requirement)
    wanted: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    monkeypatch.setattr(
        runners,
        "want_places",
        lambda waiting: wanted.put_nowait((waiting(RUNNER.runner_id), waiting(OTHER.runner_id))),
    )
    pending = pending_of(store, runners, Dispatched(most=0))
    running = asyncio.create_task(pending.run())
    async with asyncio.timeout(STEP):
        assert await wanted.get() == (2, 0)
        await create_for(store, B)
        pending.wake()
        assert await wanted.get() == (2, 1)
    running.cancel()
    await asyncio.wait({running})


async def test_a_cancellation_is_not_lost_when_a_runner_has_room_at_the_same_moment(
    store: Store, runners: Runners
) -> None:
    pending = pending_of(store, runners)
    running = asyncio.create_task(pending.run())
    # It first reads the store.
    while not pending._wake._waiters:  # noqa: ASYNC110 (nothing tells)
        await asyncio.sleep(0)
    pending.wake()
    running.cancel()
    for _ in range(100):
        await asyncio.sleep(0)
    was_cancelled = running.done()
    running.cancel()  # Without this, a failed test would not end.
    await asyncio.wait({running})
    assert was_cancelled


async def test_requests_are_dispatched_after_an_unexpected_exception(store: Store, runners: Runners) -> None:
    class Broken(Dispatched):
        """Raises at the first call."""

        calls = 0

        async def __call__(self, waiting: Sequence[WaitingRequest]) -> Sequence[WaitingRequest]:
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("a fault")
            return await super().__call__(waiting)

    made = await create_for(store, A)
    dispatch = Broken()
    pending = pending_of(store, runners, dispatch)
    looking = asyncio.create_task(pending.run())
    async with asyncio.timeout(STEP):
        while not dispatch.requests:
            pending.wake()
            await asyncio.sleep(0.01)
    looking.cancel()
    await asyncio.wait({looking})
    assert dispatch.requests[0].request_id == made
