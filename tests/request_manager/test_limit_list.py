"""The list of limits: its pages, who is shown to whom, and that those who wait delay nobody."""

from __future__ import annotations

import asyncio

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.v1.limit_pb2 import HeldLimit
from spincycle_grpc.v1.request_manager_pb2 import ListLimitsRequest
from spincycle_server.capabilities import NEEDS_NOTHING, WAITS_FOR_LIMIT, Capabilities
from spincycle_server.identity.access import ALL_TYPES, VisibleTypes
from spincycle_server.request_manager.limit_list import LimitList
from spincycle_server.request_manager.runners import Runners
from spincycle_server.request_manager.startable_requests import find_startable
from spincycle_server.store import Store
from tests.store.limit_samples import Sequences, create_limited
from tests.store.samples import RUNNER, create


async def listed(store: Store, visible: VisibleTypes = ALL_TYPES, **fields: object) -> list[HeldLimit]:
    """Returns the keys of all pages, sorted."""
    found: list[HeldLimit] = []
    token = str(fields.pop("page_token", ""))
    while True:
        call = ListLimitsRequest(page_token=token, **fields)  # type: ignore[arg-type]
        page = await LimitList(store).list(call, visible)
        assert len(page.limits) <= (call.page_size or 100)
        found += page.limits
        if not (token := page.next_page_token):
            return sorted(found, key=lambda limit: limit.key)


async def test_a_key_shows_who_holds_it_and_who_waits(store: Store) -> None:
    first = await create_limited(store, "a", user="finch")
    second = await create_limited(store, "a")
    await create_limited(store, "b", most=3)
    a, b = await listed(store)
    assert (a.key, a.max, a.holding, a.waiting) == ("a", 1, 1, 1)
    assert (b.key, b.max, b.holding, b.waiting) == ("b", 3, 1, 0)
    assert [(one.request_id, one.holds) for one in a.claims] == [(first.id, True), (second.id, False)]
    assert a.claims[0].user == "finch"
    assert a.claims[0].request_type == "stop-host"
    assert a.claims[0].since == first.created_at
    assert await listed(store, key="b") == [b]
    assert await listed(store, key="c") == []


async def test_pages_have_each_key_once(store: Store) -> None:
    await asyncio.gather(*(create_limited(store, f"{number}") for number in range(7)))
    whole = await listed(store)
    assert [limit.key for limit in whole] == [f"{number}" for number in range(7)]
    for size in (1, 3, 7, 1000):
        assert await listed(store, page_size=size) == whole
    with pytest.raises(InvalidArgumentError) as refused:
        await listed(store, page_size=-1)
    assert refused.value.reason == "BAD_PAGE_SIZE"
    with pytest.raises(InvalidArgumentError) as refused:
        await LimitList(store).list(ListLimitsRequest(page_token="x"), ALL_TYPES)
    assert refused.value.reason == "BAD_PAGE_TOKEN"


async def test_callers_see_only_requests_that_they_may_view(store: Store) -> None:
    await create_limited(store, "a", type="secret")
    seen = await create_limited(store, "a", type="open")
    await create_limited(store, "b", type="secret")
    for visible in (VisibleTypes(only=frozenset({"open"})), VisibleTypes(hidden=frozenset({"secret"}))):
        [a] = await listed(store, visible)
        assert (a.key, a.holding, a.waiting) == ("a", 1, 1)
        assert [one.request_id for one in a.claims] == [seen.id]


async def test_the_keys_of_one_request(store: Store) -> None:
    one, other = await Sequences.started(store), await Sequences.started(store)
    await one.tell(store, *(one.claim(f"{number:04}", f"{number}") for number in range(3)))
    await other.tell(store, other.claim("aaaa", "1"), other.claim("bbbb", "3"))
    waits = await create_limited(store, "3")
    keys = {}
    for request_id in (one.request_id, other.request_id, waits.id, "no such request"):
        found = await listed(store, request_id=request_id, page_size=2)
        keys[request_id] = [limit.key for limit in found]
    assert list(keys.values()) == [["0", "1", "2"], ["1", "3"], ["3"], []]
    [limit] = await listed(store, request_id=one.request_id, key="1")
    assert [claim.request_id for claim in limit.claims] == [one.request_id, other.request_id]
    assert await listed(store, request_id=waits.id, key="1") == []
    first = await LimitList(store).list(ListLimitsRequest(page_size=1), ALL_TYPES)
    with pytest.raises(InvalidArgumentError):  # It is of another list.
        await listed(store, request_id=one.request_id, page_token=first.next_page_token)


async def test_the_claims_of_a_request_are_shown_behind_many_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spincycle_server.store.limit_pages.MAX_SHOWN", 2)
    first, second, third, last = [await create_limited(store, "a") for _ in range(4)]
    for asking, shown in ((third, [first, second, third]), (first, [first, second])):
        [limit] = await listed(store, request_id=asking.id)
        assert [one.request_id for one in limit.claims] == [one.id for one in shown]
        assert (limit.holding, limit.waiting) == (1, 3)
    [limit] = await listed(store)
    assert last.id not in {one.request_id for one in limit.claims}


async def test_the_keys_of_a_request_that_the_caller_may_not_view_are_not_listed(store: Store) -> None:
    seen = await create_limited(store, "a", type="open")
    hidden = await create_limited(store, "a", type="secret")
    visible = VisibleTypes(hidden=frozenset({"secret"}))
    assert [limit.key for limit in await listed(store, visible, request_id=seen.id)] == ["a"]
    assert await listed(store, visible, request_id=hidden.id) == []


async def test_requests_that_wait_for_a_limit_are_not_read_to_find_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = await create_limited(store, "a")
    await asyncio.gather(*(create_limited(store, "a") for _ in range(60)))
    plain = await create(store, None)
    runners = Runners(store)
    runners.add(RUNNER, Capabilities(frozenset({"noop", "nap"})))
    startable = await find_startable(store, runners, State.PENDING, 10)
    assert {one.request_id for one in startable.requests} >= {holder.id}
    await store.assign(holder.id, RUNNER, expected_state=State.PENDING)
    read: list[str] = []
    resolve = store.requirements.resolve

    async def counted(rows: object) -> object:
        read.extend(row.request_id for row in rows)  # type: ignore[attr-defined]
        return await resolve(rows)  # type: ignore[arg-type]

    monkeypatch.setattr(store.requirements, "resolve", counted)
    startable = await find_startable(store, runners, State.PENDING, 10)
    assert [one.request_id for one in startable.requests] == [plain.id]
    assert len(read) <= 10 + 1
    await runners.close()


async def test_a_request_that_waits_for_a_limit_is_blocked_also_without_runners(store: Store) -> None:
    runners = Runners(store)
    assert runners.is_blocked(WAITS_FOR_LIMIT)
    assert not runners.is_blocked(NEEDS_NOTHING)
    runners.add(RUNNER, Capabilities(None))
    assert runners.is_blocked(WAITS_FOR_LIMIT)
    assert runners.why_waiting(State.PENDING, WAITS_FOR_LIMIT, "") == ""
    await runners.close()
