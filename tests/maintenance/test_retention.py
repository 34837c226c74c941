"""Retention deletes old requests with all their rows, and nothing else, on each database."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy import bindparam, func, insert, select, update

from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.notification_pb2 import Notification
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_server.maintenance.retention import MAX_LOG_ENTRIES, MAX_REQUESTS, Retention
from spincycle_server.notifications.contents import contents_of
from spincycle_server.notifications.targets import Target, Targets
from spincycle_server.store import Store
from spincycle_server.store.positions import MAX_AGE
from spincycle_server.store.schema import (
    approval_decisions,
    approvals,
    deleted_requests,
    deliveries,
    idempotency_keys,
    job_chain_pages,
    job_log,
    metadata,
    requests,
    sequence_claims,
)
from tests.databases import OPTIONS, engine_of
from tests.store.faults import FAULTS, CommitFaults
from tests.store.limit_samples import NEEDS, claims_by_key, create_limited
from tests.store.samples import a_log_entry, a_suspended_chain, create

HOUR = 3_600_000_000
TABLES = (
    "requests", "request_archives", "request_args", "job_log", "suspended_job_chains", "idempotency_keys",
    "approvals", "approval_decisions", "job_chain_pages", "sequence_claims",
)  # fmt: skip


async def fill(url: str, ages: dict[State, int], each: int, entries: int = 3) -> None:
    """Makes requests in some states that ended some hours ago, all with rows in all tables."""
    store = await Store.open(url, OPTIONS)
    made = await asyncio.gather(*(create(store) for _ in range(each * len(ages))))
    await asyncio.gather(*(store.suspend(one.id, a_suspended_chain(one.id)) for one in made))
    await store.close()
    now = time.time_ns() // 1000
    states = [(request.id, list(ages)[number // each]) for number, request in enumerate(made)]
    ended = [
        {"id": request_id, "state": state, "ended": now - ages[state] * HOUR if ages[state] else None}
        for request_id, state in states
    ]
    end = (
        update(requests)
        .where(requests.c.request_id == bindparam("id"))
        .values(state=bindparam("state"), finished_at=bindparam("ended"), created_at=requests.c.created_at)
    )
    keys = [
        {
            "key_hash": request_id.encode().ljust(32),
            "body_hash": bytes(32),
            "request_id": request_id,
            "expires_at": now + HOUR,
        }
        for request_id, _ in states
    ]
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(end, ended)
        logged = [log_row(request_id, entry) for request_id, _ in states for entry in range(entries)]
        connection.execute(insert(job_log), logged)
        connection.execute(insert(idempotency_keys), keys)
        connection.execute(insert(approvals), [approval_row(request_id) for request_id, _ in states])
        connection.execute(insert(approval_decisions), [decision_row(one) for one, _ in states])
        pages = [{"request_id": request_id, "number": 0, "page": b"{}"} for request_id, _ in states]
        connection.execute(insert(job_chain_pages), pages)
        connection.execute(insert(sequence_claims), [sequence_row(request_id) for request_id, _ in states])
    engine.dispose()


def approval_row(request_id: str) -> dict[str, Any]:
    return {
        "request_id": request_id, "job_id": "appr", "try": 1, "sequence_tries": "1", "body": b"{}",
        "opened_at": 1, "deadline": 2, "result": 1,
    }  # fmt: skip


def decision_row(request_id: str) -> dict[str, Any]:
    return {
        "request_id": request_id, "job_id": "appr", "try": 1, "user": "ann", "approved": True,
        "comment": "", "decided_at": 1,
    }  # fmt: skip


def sequence_row(request_id: str) -> dict[str, Any]:
    return {
        "request_id": request_id, "sequence_id": "aaaa", "epoch": 1, "number": 1, "body": b"{}",
        "reason": "", "error": "",
    }  # fmt: skip


def log_row(request_id: str, number: int) -> dict[str, Any]:
    entry = a_log_entry(request_id, number=number + 1)
    return {
        "request_id": request_id, "job_id": entry.job_id, "try": number + 1, "name": entry.name,
        "type": entry.type, "state": entry.state, "started_at": 1, "finished_at": 2,
    }  # fmt: skip


def rows(url: str) -> dict[str, int]:
    engine = engine_of(url)
    with engine.connect() as connection:
        counts = {
            table: connection.scalar(select(func.count()).select_from(metadata.tables[table])) or 0
            for table in TABLES
        }
    engine.dispose()
    return counts


class Told:
    """Records the calls of the progress callback of `prune`."""

    def __init__(self) -> None:
        self.requests: list[int] = []
        self.entries: list[int] = []

    def __call__(self, more_requests: int, more_entries: int) -> None:
        self.requests.append(more_requests)
        self.entries.append(more_entries)


OLD = {State.COMPLETE: 100, State.FAIL: 100, State.STOPPED: 100}
KEPT = {State.PENDING: 0, State.RUNNING: 0, State.SUSPENDED: 0}


@pytest.mark.parametrize("faults", FAULTS)
async def test_old_requests_are_deleted_with_all_their_rows(migrated_url: str, faults: str) -> None:
    await fill(migrated_url, {**OLD, **KEPT}, each=2)
    retention = Retention(migrated_url, OPTIONS)
    broken = CommitFaults(retention.engine, faults) if faults != "none" else None
    before = retention.cutoff(90 * HOUR)
    assert retention.count(before) == dict.fromkeys(OLD, 2)
    assert retention.prune(before, Told(), lambda: False)
    assert retention.count(before) == {}
    retention.close()
    assert broken is None or broken.count
    assert rows(migrated_url) == dict.fromkeys(TABLES, 6) | {"job_log": 18}
    store = await Store.open(migrated_url, OPTIONS)
    for state in KEPT:
        assert len(await store.get_log((await one_of(store, state)).id)) == 3
    await store.close()


async def one_of(store: Store, state: State) -> Any:
    return (await store.find_requests(RequestFilter(states=[int(state)], limit=1)))[0]  # type: ignore[list-item]


async def test_watchers_learn_of_deleted_requests_for_as_long_as_their_cursors_are_valid(
    migrated_url: str,
) -> None:
    await fill(migrated_url, {State.COMPLETE: 100, State.FAIL: 100, State.RUNNING: 0}, each=2)
    store = await Store.open(migrated_url, OPTIONS)
    ended = RequestFilter(states=[state_pb2.STATE_COMPLETE, state_pb2.STATE_FAIL])
    old = {one.id for one in await store.find_requests(ended)}
    before = (await store.read_changes(None, None)).position
    retention = Retention(migrated_url, OPTIONS)
    retention.prune(retention.cutoff(90 * HOUR), Told(), lambda: False)
    changes = await store.read_changes(before, None)
    assert {one.request_id for one in changes.deleted} == old
    assert {(one.type, one.user) for one in changes.deleted} == {("stop-host", "finch")}
    assert not (await store.read_changes(changes.position, None)).deleted
    engine = engine_of(migrated_url)
    with engine.begin() as connection:
        connection.execute(
            update(deleted_requests).values(deleted_at=deleted_requests.c.deleted_at - MAX_AGE)
        )
    retention.prune(retention.cutoff(90 * HOUR), Told(), lambda: False)
    with engine.connect() as connection:
        assert not connection.execute(select(deleted_requests)).all()
    engine.dispose()
    retention.close()
    await store.close()


async def test_the_keys_of_deleted_requests_are_released(migrated_url: str) -> None:
    store = await Store.open(migrated_url, OPTIONS)
    dead = [await create_limited(store, "a", "b") for _ in range(2)]
    waits = await create_limited(store, "a")
    old = time.time_ns() // 1000 - 100 * HOUR
    end = (
        update(requests)
        .where(requests.c.request_id.in_([one.id for one in dead]))
        .values(state=State.FAIL, finished_at=old, created_at=requests.c.created_at)
    )
    engine = engine_of(migrated_url)
    with engine.begin() as connection:
        connection.execute(end)
    engine.dispose()
    before = (await store.read_changes(None, None)).position
    retention = Retention(migrated_url, OPTIONS)
    assert retention.prune(retention.cutoff(90 * HOUR), Told(), lambda: False)
    retention.close()
    assert rows(migrated_url)["requests"] == 1
    assert await claims_by_key(migrated_url) == {"a": [(waits.id, True)]}
    assert waits.id in (await store.read_changes(before, None)).requests
    assert await store.requirements.of(waits.id) == NEEDS
    await store.close()


async def test_recent_requests_are_kept(migrated_url: str) -> None:
    await fill(migrated_url, {State.COMPLETE: 89, State.FAIL: 91, State.STOPPED: 1}, each=1)
    retention = Retention(migrated_url, OPTIONS)
    before = retention.cutoff(90 * HOUR)
    assert retention.count(before) == {State.FAIL: 1}
    assert retention.prune(before, Told(), lambda: False)
    retention.close()
    assert rows(migrated_url)["requests"] == 2


async def test_each_transaction_deletes_a_bounded_number_of_rows(migrated_url: str) -> None:
    await fill(migrated_url, {State.COMPLETE: 100}, each=MAX_REQUESTS + 7)
    await fill(migrated_url, {State.FAIL: 200}, each=1, entries=2 * MAX_LOG_ENTRIES + 1)
    told = Told()
    retention = Retention(migrated_url, OPTIONS)
    assert retention.prune(retention.cutoff(90 * HOUR), told, lambda: False)
    retention.close()
    assert sum(told.requests) == MAX_REQUESTS + 8
    assert sum(told.entries) == 3 * (MAX_REQUESTS + 7) + 2 * MAX_LOG_ENTRIES + 1
    assert max(told.requests) <= MAX_REQUESTS
    assert max(told.entries) <= MAX_LOG_ENTRIES
    assert rows(migrated_url) == dict.fromkeys(TABLES, 0)


async def test_an_interrupted_run_continues_in_the_next_run(migrated_url: str) -> None:
    await fill(migrated_url, {State.FAIL: 100}, each=1, entries=2 * MAX_LOG_ENTRIES + 1)
    told = Told()
    retention = Retention(migrated_url, OPTIONS)
    before = retention.cutoff(90 * HOUR)
    assert not retention.prune(before, told, lambda: len(told.entries) == 2)
    assert sum(told.entries) == MAX_LOG_ENTRIES
    assert retention.count(before) == {State.FAIL: 1}
    assert rows(migrated_url)["job_log"] == MAX_LOG_ENTRIES + 1
    assert retention.prune(before, told, lambda: False)
    retention.close()
    assert rows(migrated_url) == dict.fromkeys(TABLES, 0)


async def test_a_store_can_be_used_while_old_requests_are_deleted(migrated_url: str) -> None:
    await fill(migrated_url, {State.COMPLETE: 100}, each=3 * MAX_REQUESTS)
    store = await Store.open(migrated_url, OPTIONS)
    retention = Retention(migrated_url, OPTIONS)
    before = retention.cutoff(90 * HOUR)
    pruning = asyncio.ensure_future(asyncio.to_thread(retention.prune, before, Told(), lambda: False))
    made = 0
    while not pruning.done() or not made:
        request = await create(store)
        await store.finish(request.id, State.COMPLETE, time.time_ns() // 1000, 3)
        made += 1
    assert await pruning
    retention.close()
    await store.close()
    assert rows(migrated_url)["requests"] == made


def test_a_delivery_that_waits_outlives_its_request(migrated_url: str) -> None:
    request_id = asyncio.run(_fail_with_deliveries(migrated_url))
    engine = engine_of(migrated_url)
    with engine.begin() as connection:
        connection.execute(update(requests).values(finished_at=time.time_ns() // 1000 - 3 * HOUR))
    retention = Retention(migrated_url, OPTIONS)
    assert retention.prune(retention.cutoff(HOUR), lambda *_: None, lambda: False)
    retention.close()
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(requests)) == 0
        left = connection.execute(select(deliveries.c.target, deliveries.c.request_id)).all()
        assert [tuple(one) for one in left] == [("waits", request_id)]
    engine.dispose()
    notification = asyncio.run(_content_left(migrated_url))
    assert (notification.request_id, notification.event) == (request_id, "failed")
    assert not notification.failed_jobs


async def _fail_with_deliveries(url: str) -> str:
    """Fails a request. Its delivery to one target has ended, and that to another one waits."""
    store = await Store.open(url, OPTIONS)
    store.notify(Targets([_target("ends"), _target("waits")]), lambda _: None)
    made = await create(store)
    await store.finish(made.id, State.FAIL, time.time_ns() // 1000, 1)
    (claimed,) = await store.deliveries.claim(await store.deliveries.due("ends", 1), 60.0)
    await store.deliveries.delivered(claimed)
    await store.close()
    return made.id


async def _content_left(url: str) -> Notification:
    store = await Store.open(url, OPTIONS)
    (due,) = await store.deliveries.due("waits", 10)
    content = await contents_of(store, due, _target("waits"), "")
    await store.close()
    return content


def _target(name: str) -> Target:
    return Target(name=name, url="https://h", host="h", format="json", events=frozenset({"failed"}))
