"""Limits in the store: who holds a key, who waits, in which order, and what each policy does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import event, select, text, update

from spincycle_grpc.errors import ConflictError, FailedPreconditionError, ResourceExhaustedError
from spincycle_grpc.state import FINAL_STATES, State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.limit_pb2 import LimitPolicy
from spincycle_server.capabilities import WAITS_FOR_LIMIT
from spincycle_server.store import CreatedBeforeError, IdempotencyKey, Store
from spincycle_server.store import limited_creation as limited_creation_module
from spincycle_server.store.audit import effect_row
from spincycle_server.store.limit_ledger import LimitsChanged
from spincycle_server.store.schema import audit_events, requests
from spincycle_server.store.states import StopUnassigned
from tests.store.limit_samples import (
    NEEDS,
    QUEUE,
    REFUSE,
    REPLACE,
    Sequences,
    claims_by_key,
    create_limited,
    holders,
    limited_write,
)
from tests.store.managers import read_rows, two_stores
from tests.store.samples import RUNNER, a_report, a_request, a_suspended_chain, create, waiting_ids


async def can_start(store: Store) -> list[str]:
    """Returns the PENDING requests that a runner may get."""
    return [
        one.request_id
        for one in await store.requirements.oldest_waiting_for(
            State.PENDING, [NEEDS.requirement_id], limit=100
        )
    ]


async def run(store: Store, request_id: str) -> None:
    assert await store.assign(request_id, RUNNER, expected_state=State.PENDING) is not None


async def state_of(store: Store, request_id: str) -> State:
    return State((await store.get_request(request_id, with_job_chain=False)).state)


async def waiting_of(store: Store, request_id: str) -> str:
    return (await store.get_request(request_id, with_job_chain=False)).waiting


async def test_requests_hold_a_key_one_after_the_other(store: Store, migrated_url: str) -> None:
    first, second, third = [await create_limited(store, "cluster/a") for _ in range(3)]
    assert await can_start(store) == [first.id]
    assert await claims_by_key(migrated_url) == {
        "cluster/a": [(first.id, True), (second.id, False), (third.id, False)]
    }
    await run(store, first.id)
    assert await can_start(store) == []
    report = a_report(first.id, ends=state_pb2.STATE_COMPLETE)
    assert not await store.apply_reports(RUNNER.runner_id, [report])
    assert await can_start(store) == [second.id]
    assert await store.stop_unassigned(second.id)
    assert await can_start(store) == [third.id]
    assert await store.stop_unassigned(third.id)
    assert await claims_by_key(migrated_url) == {}


async def test_other_keys_and_requests_without_limits_do_not_wait(store: Store) -> None:
    first = await create_limited(store, "a")
    waits = await create_limited(store, "a")
    other = await create_limited(store, "b")
    plain = await create(store, None)
    assert await can_start(store) == [first.id, other.id]
    assert set(await waiting_ids(store)) == {first.id, waits.id, other.id, plain.id}
    assert (await store.requirements.of(waits.id)) == WAITS_FOR_LIMIT


async def test_several_may_hold_a_key(store: Store) -> None:
    made = [await create_limited(store, "a", most=2) for _ in range(4)]
    assert await can_start(store) == [made[0].id, made[1].id]
    await store.stop_unassigned(made[0].id)
    assert await can_start(store) == [made[1].id, made[2].id]


async def test_a_request_gets_all_its_keys_at_once(store: Store, migrated_url: str) -> None:
    a = await create_limited(store, "a")
    both = await create_limited(store, "a", "b")
    b = await create_limited(store, "b")
    assert await can_start(store) == [a.id], "a request overtook one that waits for another key too"
    await store.stop_unassigned(a.id)
    assert await can_start(store) == [both.id]
    await store.stop_unassigned(both.id)
    assert await can_start(store) == [b.id]
    assert await holders(migrated_url) == {"b": [b.id]}


async def test_a_waiting_request_that_ends_leaves_its_place(store: Store) -> None:
    first, second, third = [await create_limited(store, "a") for _ in range(3)]
    await store.stop_unassigned(second.id)
    assert await can_start(store) == [first.id]
    await store.stop_unassigned(first.id)
    assert await can_start(store) == [third.id]


async def test_a_request_that_ends_while_it_waits_still_says_what_it_needs(store: Store) -> None:
    _, waits = [await create_limited(store, "a", "b") for _ in range(2)]
    assert await store.requirements.of(waits.id) == WAITS_FOR_LIMIT
    await store.stop_unassigned(waits.id)
    assert await store.requirements.of(waits.id) == NEEDS


async def test_a_holder_keeps_its_key_while_it_is_suspended_and_paused(store: Store) -> None:
    first, second = [await create_limited(store, "a") for _ in range(2)]
    await run(store, first.id)
    await store.begin_pause(first.id, "finch", stops_jobs=False)
    suspended = a_report(first.id, ends=a_suspended_chain(first.id))
    assert not await store.apply_reports(RUNNER.runner_id, [suspended])
    assert await can_start(store) == []
    await store.end_pause(first.id)
    assert await can_start(store) == []
    await store.fail_unresumed(-10.0)
    assert await state_of(store, first.id) is State.FAIL
    assert await can_start(store) == [second.id]


@pytest.mark.parametrize("how", ["finish", "stop", "end", "lost original", "stop before the start"])
async def test_each_end_releases_the_keys(store: Store, migrated_url: str, how: str) -> None:
    first, second = [await create_limited(store, "a") for _ in range(2)]
    if how == "stop before the start":
        await store.stop_unassigned(first.id)
    else:
        await run(store, first.id)
        if how == "finish":
            await store.finish(first.id, State.FAIL, 1_800_000_009_000_000, 1)
        elif how == "stop":
            await store.request_stop(first.id)
            assert await can_start(store) == [], "the key was released before the end"
            report = a_report(first.id, ends=state_pb2.STATE_STOPPED)
            await store.apply_reports(RUNNER.runner_id, [report])
        elif how == "end":
            found = await store.get_assignment(first.id)
            assert found is not None
            await store.end_assignment(found[0], State.STOPPED)
        else:
            await change(store, f"UPDATE requests SET runner_id = 'original' WHERE request_id = '{first.id}'")
            await store.end_lost_original(first.id)
    assert await state_of(store, first.id) in FINAL_STATES
    assert await can_start(store) == [second.id]
    assert await holders(migrated_url) == {"a": [second.id]}


async def change(store: Store, statement: str) -> None:
    """Changes the database as another program does."""
    with store._engine.begin() as connection:
        connection.execute(text(statement))


async def test_a_request_says_what_it_waits_for(store: Store) -> None:
    first, second, third = [await create_limited(store, "cluster/a") for _ in range(3)]
    assert await waiting_of(store, first.id) == ""
    at = "2027-01-15T08:00:00Z"
    held = f"waits for the limit cluster/a of 1 since {at}: request {first.id} holds it"
    assert await waiting_of(store, second.id) == held
    found = await store.requests_by_id([second.id, third.id])
    assert {one.waiting for one in found.values()} == {held}
    await store.stop_unassigned(first.id)
    assert await waiting_of(store, second.id) == ""
    assert f"request {second.id} holds it" in await waiting_of(store, third.id)
    await store.begin_pause(third.id, "finch", stops_jobs=False)
    assert (await waiting_of(store, third.id)).startswith("paused by finch")


async def test_refuse_stores_nothing(store: Store, migrated_url: str) -> None:
    first = await create_limited(store, "a", policy=REFUSE)
    key = IdempotencyKey(b"k" * 32, b"b" * 32)
    refused_id = a_request().id
    for _ in range(2):
        with pytest.raises(FailedPreconditionError) as refused:
            await create_limited(store, "new", "a", policy=REFUSE, key=key, id=refused_id)
        assert refused.value.reason == "LIMIT_REACHED"
    assert await store.requests_by_id([refused_id]) == {}
    assert await claims_by_key(migrated_url) == {"a": [(first.id, True)]}
    await store.stop_unassigned(first.id)
    again = await create_limited(store, "new", "a", policy=REFUSE, key=key)
    assert await can_start(store) == [again.id]
    with pytest.raises(CreatedBeforeError):
        await create_limited(store, "new", "a", policy=REFUSE, key=key)
    other = IdempotencyKey(key.key_hash, b"c" * 32)
    with pytest.raises(ConflictError):
        await create_limited(store, "new", "a", policy=REFUSE, key=other)


async def refusal(store: Store, *keys: str, most: int = 1) -> str:
    """Returns the error of a request that must not wait for a limit."""
    with pytest.raises(FailedPreconditionError) as refused:
        await create_limited(store, *keys, most=most, policy=REFUSE)
    assert refused.value.reason == "LIMIT_REACHED"
    return str(refused.value)


async def test_a_refusal_names_those_who_hold_the_key(store: Store) -> None:
    made = [(await create_limited(store, "a", most=5)).id for _ in range(3)]
    await create_limited(store, "b")
    waits = await create_limited(store, "b", "c")
    sequences = await Sequences.started(store)
    await sequences.tell(store, sequences.claim("aaaa", "a", most=5), sequences.claim("bbbb", "a", most=5))
    named = ", ".join(f"request {one}" for one in made)
    assert f"the limit a of 5 is reached ({named} and 2 more hold it): " in await refusal(store, "a", most=5)
    for one in made[:2]:
        await store.stop_unassigned(one)
    several = f"request {made[2]} and 2 sequences of request {sequences.request_id} hold it): "
    assert several in await refusal(store, "a", most=3)
    # It has its turn at this key, and waits for the other one.
    assert f"the limit c of 1 is reached (request {waits.id} is before it): " in await refusal(store, "c")


async def test_a_refusal_names_a_holder_of_the_same_batch(store: Store, migrated_url: str) -> None:
    first, refused = limited_write("a"), limited_write("a", policy=REFUSE)
    results = store._creator.batches.run([first, refused])
    [first_id] = first.request_ids
    assert f"request {first_id} holds it" in str(results[1])
    assert await holders(migrated_url) == {"a": [first_id]}


async def test_replace_stops_the_holder_and_waits_for_its_end(store: Store, migrated_url: str) -> None:
    changes: list[LimitsChanged] = []
    store.on_limits(changes.append)
    holder, waits = [await create_limited(store, "a") for _ in range(2)]
    await run(store, holder.id)
    row = effect_row(
        user="finch", auth_method="token", peer="h", transport="grpc",
        operation="RequestManager.Create", request_id="", request_type="stop-host",
    )  # fmt: skip
    newest = await create_limited(store, "a", policy=REPLACE, event=dict(row))
    assert await state_of(store, waits.id) is State.STOPPED
    assert await state_of(store, holder.id) is State.RUNNING
    assert (await store.assigned_to(RUNNER.runner_id))[holder.id].stop_requested
    assert await can_start(store) == []
    assert [one.stopped for one in changes if one.stopped] == [(holder.id,)]
    stops = await read_rows(
        migrated_url,
        select(audit_events).where(audit_events.c.operation == "RequestManager.Stop"),
    )
    assert {one.request_id for one in stops} == {holder.id, waits.id}
    why = f"replaced by request {newest.id} at the limit a"
    assert {one.detail for one in stops} == {why}
    told = {(one.request_id, one.why) for change in changes for one in change.replaced}
    assert told == {(holder.id, why), (waits.id, why)}
    found = await store.requests_by_id([holder.id, waits.id, newest.id])
    reason = f"request {newest.id} replaced it at the limit a"
    assert {one.id: one.stop_reason for one in found.values()} == {
        holder.id: reason, waits.id: reason, newest.id: "",
    }  # fmt: skip
    report = a_report(holder.id, ends=state_pb2.STATE_STOPPED)
    await store.apply_reports(RUNNER.runner_id, [report])
    assert await can_start(store) == [newest.id]


async def test_replace_goes_on_at_once_if_no_runner_has_the_holder(store: Store) -> None:
    holder = await create_limited(store, "a")
    newest = await create_limited(store, "a", policy=REPLACE)
    assert await state_of(store, holder.id) is State.STOPPED
    assert await can_start(store) == [newest.id]


async def test_a_request_that_is_complete_before_the_stop_has_no_reason_of_a_stop(store: Store) -> None:
    holder = await create_limited(store, "a")
    await run(store, holder.id)
    await create_limited(store, "a", policy=REPLACE)
    assert (await store.get_request(holder.id, with_job_chain=False)).stop_reason
    report = a_report(holder.id, ends=state_pb2.STATE_COMPLETE)
    assert not await store.apply_reports(RUNNER.runner_id, [report])
    assert (await store.get_request(holder.id, with_job_chain=False)).stop_reason == ""


async def test_replace_stops_the_oldest_and_no_more_than_it_must(store: Store) -> None:
    made = [await create_limited(store, "a", most=2) for _ in range(2)]
    for one in made:
        await run(store, one.id)
    third = await create_limited(store, "a", most=2, policy=REPLACE)
    assigned = await store.assigned_to(RUNNER.runner_id)
    assert [assigned[one.id].stop_requested for one in made] == [True, False]
    fourth = await create_limited(store, "a", most=2, policy=REPLACE)
    assigned = await store.assigned_to(RUNNER.runner_id)
    assert [assigned[one.id].stop_requested for one in made] == [True, True]
    for one in made:
        report = a_report(one.id, ends=state_pb2.STATE_STOPPED)
        await store.apply_reports(RUNNER.runner_id, [report])
    assert await can_start(store) == [third.id, fourth.id]


async def test_the_newest_request_says_how_many_may_hold_a_key(store: Store) -> None:
    made = [await create_limited(store, "a") for _ in range(3)]
    made.append(await create_limited(store, "a", most=3))
    assert await can_start(store) == [one.id for one in made[:3]]
    made.append(await create_limited(store, "a", most=1))
    for one in made[:3]:
        await store.stop_unassigned(one.id)
    assert await can_start(store) == [made[3].id]


async def test_the_number_of_waiting_requests_is_limited(
    store: Store, monkeypatch: pytest.MonkeyPatch, migrated_url: str
) -> None:
    monkeypatch.setattr(limited_creation_module, "MAX_WAITING", 2)
    made = [await create_limited(store, "a") for _ in range(3)]
    with pytest.raises(ResourceExhaustedError) as refused:
        await create_limited(store, "a")
    assert refused.value.reason == "TOO_MANY_AT_LIMIT"
    await store.stop_unassigned(made[0].id)
    with pytest.raises(ResourceExhaustedError) as refused:
        await create_limited(store, "a", may_wait=False)
    assert refused.value.reason == "TOO_MANY_BLOCKED"
    assert len((await claims_by_key(migrated_url))["a"]) == 2


async def test_a_request_that_must_not_wait_is_refused_for_that_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_creation_module, "MAX_WAITING", 1)
    for name in "a", "a", "b":
        await create_limited(store, name)
    with pytest.raises(FailedPreconditionError) as refused:
        await create_limited(store, "a", "b", policy={"a": QUEUE, "b": REFUSE})
    assert refused.value.reason == "LIMIT_REACHED"


async def test_what_an_original_has_ended_holds_nothing_for_ever(store: Store, migrated_url: str) -> None:
    first, second = [await create_limited(store, "a") for _ in range(2)]
    end = update(requests).where(requests.c.request_id == first.id).values(state=State.FAIL)
    with store._engine.begin() as connection:
        connection.execute(end)
    third = await create_limited(store, "a")
    assert await can_start(store) == [second.id]
    await change(store, f"DELETE FROM requests WHERE request_id = '{second.id}'")
    await store.limits.release_ended()
    assert await holders(migrated_url) == {"a": [third.id]}


@pytest.mark.parametrize("policy", [QUEUE, REFUSE, REPLACE])
@pytest.mark.parametrize("left", ["ended", "deleted"])
async def test_a_request_that_others_have_ended_does_not_keep_a_new_one_from_its_key(
    store: Store, migrated_url: str, policy: LimitPolicy.ValueType, left: str
) -> None:
    dead = [await create_limited(store, "a", "b") for _ in range(4)]
    for one in dead:
        if left == "ended":
            await change(store, f"UPDATE requests SET state = {State.FAIL:d} WHERE request_id = '{one.id}'")
        else:
            await change(store, f"DELETE FROM requests WHERE request_id = '{one.id}'")
    new = await create_limited(store, "a", policy=policy)
    assert await claims_by_key(migrated_url) == {"a": [(new.id, True)]}
    assert await can_start(store) == [new.id]
    await store.stop_unassigned(new.id)
    assert await claims_by_key(migrated_url) == {}


async def test_the_end_of_a_holder_and_new_requests_in_one_batch(store: Store, migrated_url: str) -> None:
    holder = await create_limited(store, "a")
    first, second = limited_write("a", "b"), limited_write("b")
    store._creator.batches.run([first, second, StopUnassigned(holder.id, 1)])
    [first_id], [second_id] = first.request_ids, second.request_ids
    assert await claims_by_key(migrated_url) == {
        "a": [(first_id, True)],
        "b": [(first_id, True), (second_id, False)],
    }
    assert await can_start(store) == [first_id]


async def test_claims_of_one_batch_are_not_taken_for_abandoned_ones(store: Store, migrated_url: str) -> None:
    dead, waits = [await create_limited(store, "k2") for _ in range(2)]
    await change(store, f"UPDATE requests SET state = {State.FAIL:d} WHERE request_id = '{dead.id}'")
    batch = [limited_write(key, most=most) for key, most in (("k1", 2), ("k1", 2), ("k2", 1), ("k1", 2))]
    store._creator.batches.run(batch)
    a1, a2, b, c = (write.request["request_id"] for write in batch)
    assert await claims_by_key(migrated_url) == {
        "k1": [(a1, True), (a2, True), (c, False)],
        "k2": [(waits.id, True), (b, False)],
    }
    assert await can_start(store) == [waits.id, a1, a2]


async def test_requests_without_limits_touch_no_table_of_limits(store: Store) -> None:
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(store._engine, "before_cursor_execute", note)
    request = await create(store)
    report = a_report(request.id, ends=state_pb2.STATE_COMPLETE)
    assert not await store.apply_reports(RUNNER.runner_id, [report])
    assert seen
    assert not [one for one in seen if re.search(r"\b(limits|limit_claims)\b", one)]


@pytest.fixture
async def both(migrated_url: str) -> AsyncIterator[tuple[Store, Store]]:
    """Two stores on one database."""
    async with two_stores(migrated_url) as stores:
        yield stores


async def test_many_requests_at_once_get_a_key_in_the_order_of_their_commits(
    both: tuple[Store, Store], migrated_url: str
) -> None:
    keys = ("a", "b", "c")
    wanted = [("a",), ("b", "a"), ("c", "b"), ("a", "c"), ("c",)]
    await asyncio.gather(
        *(
            create_limited(both[number % 2], *wanted[number % 5], most={"a": 1, "b": 2, "c": 1})
            for number in range(60)
        )
    )
    held: list[str] = []
    while claims := await claims_by_key(migrated_url):
        check_order(claims, {"a": 1, "b": 2, "c": 1})
        now = {one for key in keys for one, holds in claims.get(key, ()) if holds}
        assert now, "nobody holds a key for which others wait"
        held += sorted(now)
        await asyncio.gather(
            *(both[number % 2].stop_unassigned(one) for number, one in enumerate(sorted(now)))
        )
    assert len(held) == len(set(held)) == 60


def check_order(claims: dict[str, list[tuple[str, bool]]], most: dict[str, int]) -> None:
    """Checks that those hold a key that are among the first at all their keys, and nobody else."""
    first = {key: {one for one, _ in theirs[: most[key]]} for key, theirs in claims.items()}
    for key, theirs in claims.items():
        for request_id, holds in theirs:
            mine = [other for other, those in claims.items() if request_id in {one for one, _ in those}]
            assert holds == all(request_id in first[other] for other in mine), (key, request_id)
            if holds:
                assert sum(held for _, held in theirs) <= most[key]


async def test_a_new_request_and_the_end_of_the_holder_lose_no_key(
    both: tuple[Store, Store], migrated_url: str
) -> None:
    holder = await create_limited(both[0], "a")
    for number in range(40):
        new = a_request()
        await asyncio.gather(
            create_limited(both[number % 2], "a", id=new.id),
            both[(number + 1) % 2].stop_unassigned(holder.id),
        )
        assert await holders(migrated_url) == {"a": [new.id]}
        assert await can_start(both[0]) == [new.id]
        holder = new
