"""Audit events are stored with their effect, and only with it, on each database and with failing commits."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from spincycle_grpc.errors import ConflictError, NotFoundError
from spincycle_grpc.state import State
from spincycle_grpc.v1.audit_pb2 import AuditEvent, AuditFilter
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_server.database.transaction import Transaction
from spincycle_server.store import CreatedBeforeError, IdempotencyKey, Store
from spincycle_server.store.audit import EventRow, effect_row, event_row, record_event
from tests.databases import OPTIONS, engine_of
from tests.store.samples import RUNNER, a_chain, a_request, create

UNKNOWN = "9vb2d3q0c7k5r1n8m4tg"


def an_event(operation: str = "RequestManager.Create", **fields: Any) -> AuditEvent:
    """Returns an event as the Request Manager makes it."""
    event = AuditEvent(
        **{"user": "finch", "auth_method": "token", "peer": "10.0.0.9", "transport": "grpc",
           "operation": operation, "outcome": "OK", "count": 1, **fields}
    )  # fmt: skip
    if not event.HasField("occurred_at"):
        event.occurred_at.FromMicroseconds(1_800_000_000_000_001)
    return event


async def events_of(store: Store, **wanted: Any) -> list[AuditEvent]:
    """Returns the events that match a filter, oldest first, without their ids."""
    events = (await store.list_audit_events(AuditFilter(**wanted))).events[::-1]
    for event in events:
        assert len(event.id) == 20
        event.id = ""
    return events


async def test_a_creation_is_stored_with_its_event(store: Store) -> None:
    for runner in (RUNNER, None):
        made = a_request()
        event = an_event(request_id=made.id, request_type=made.type)
        await store.create_request(made, CreateRequest(), a_chain(made.id), runner, event=event_row(event))
        assert await events_of(store, request_id=made.id) == [event]


async def test_the_row_of_an_effect_is_that_of_its_event(store: Store) -> None:
    made = a_request()
    fields: dict[str, Any] = {
        "user": "finch",
        "auth_method": "token",
        "peer": "10.0.0.9",
        "transport": "grpc",
        "operation": "RequestManager.Create",
        "request_type": made.type,
    }
    before = time.time_ns() // 1000
    row = effect_row(request_id=made.id, **fields)
    await store.create_request(made, CreateRequest(), a_chain(made.id), None, event=row)
    (found,) = await events_of(store, request_id=made.id)
    assert before <= found.occurred_at.ToMicroseconds() <= time.time_ns() // 1000
    found.ClearField("occurred_at")
    assert found == AuditEvent(request_id=made.id, outcome="OK", count=1, **fields)


async def test_many_creations_have_one_event_each(store: Store) -> None:
    made = [a_request() for _ in range(20)]
    await asyncio.gather(
        *(
            store.create_request(
                one, CreateRequest(), a_chain(one.id), None, event=event_row(an_event(request_id=one.id))
            )
            for one in made
        )
    )
    assert {event.request_id for event in await events_of(store)} == {one.id for one in made}
    assert len(await events_of(store)) == 20


async def test_a_creation_that_is_refused_has_no_event(store: Store) -> None:
    key = IdempotencyKey(b"k" * 32, b"b" * 32)
    for expected, used in (
        (None, key),
        (CreatedBeforeError, key),
        (ConflictError, IdempotencyKey(b"k" * 32, b"c" * 32)),
    ):
        made = a_request()
        creation = store.create_request(
            made, CreateRequest(), a_chain(made.id), None, used, event=event_row(an_event(request_id=made.id))
        )
        if expected is None:
            await creation
            assert len(await events_of(store)) == 1
            continue
        with pytest.raises(expected):
            await creation
        assert await events_of(store, request_id=made.id) == []


async def test_a_start_has_an_event_if_the_request_was_assigned(store: Store) -> None:
    made = await create(store, runner=None)
    event = an_event("RequestManager.Start", request_id=made.id)
    assert await store.assign(made.id, RUNNER, expected_state=State.PENDING, event=event_row(event))
    assert await store.assign(made.id, RUNNER, expected_state=State.PENDING, event=event_row(event)) is None
    with pytest.raises(NotFoundError):
        await store.assign(UNKNOWN, RUNNER, expected_state=State.PENDING, event=event_row(event))
    assert await events_of(store) == [event]


async def test_the_first_stop_of_a_running_request_has_an_event(store: Store) -> None:
    made = await create(store)
    event = an_event("RequestManager.Stop", request_id=made.id)
    assert await store.request_stop(made.id, event_row(event))
    assert await store.request_stop(made.id, event_row(an_event("RequestManager.Stop", user="wren")))
    assert not await store.stop_unassigned(made.id, event_row(event))
    assert await events_of(store) == [event]


async def test_the_stop_of_a_pending_request_has_an_event(store: Store) -> None:
    made = await create(store, runner=None)
    event = an_event("RequestManager.Stop", request_id=made.id)
    assert not await store.request_stop(made.id, event_row(event))
    assert await store.stop_unassigned(made.id, event_row(event))
    assert not await store.stop_unassigned(made.id, event_row(event))
    assert await events_of(store) == [event]


async def test_changes_without_an_event_store_none(store: Store) -> None:
    made = await create(store)
    await store.request_stop(made.id)
    waiting = await create(store, runner=None)
    await store.stop_unassigned(waiting.id)
    assert await events_of(store) == []


async def test_denials_are_stored_together(store: Store) -> None:
    denials = [an_event(outcome="ACCESS_DENIED", count=count) for count in (1, 2**40)]
    await store.record_events(denials)
    assert sorted(event.count for event in await events_of(store)) == [1, 2**40]


async def test_texts_of_any_length_and_kind_are_stored_as_far_as_they_fit(store: Store) -> None:
    text = "ü\0'\\%s" * 1000
    for request_id in ("x" * 21, "ümlaut", "a\0b", "../.."):
        event = an_event(
            text, user=text, auth_method=text, peer=text, transport=text, request_id=request_id,
            request_type=text, outcome=text, detail=text,
        )  # fmt: skip
        await store.record_events([event])
    for event in await events_of(store):
        assert event.request_id == ""
        kept = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
        assert (event.user, event.peer) == (kept[:255], kept[:255])
        assert (event.detail, event.operation) == (kept[:1000], kept[:100])
        assert (event.request_type, event.outcome) == (kept[:75], kept[:64])
        assert (event.auth_method, event.transport) == (kept[:20], kept[:20])
    assert len(await events_of(store, user=text[:255].replace("\0", "\N{REPLACEMENT CHARACTER}"))) == 4


async def test_a_command_stores_an_event_in_its_own_transaction(migrated_url: str) -> None:
    kept, dropped = an_event("spincycle prune"), an_event("spincycle token create")
    engine = engine_of(migrated_url)
    with engine.begin() as connection:
        record_event(connection, kept)
    with engine.connect() as connection:
        record_event(connection, dropped)
        connection.rollback()
    engine.dispose()
    store = await Store.open(migrated_url, OPTIONS)
    assert await events_of(store) == [kept]
    await store.close()


async def test_an_event_is_sent_together_with_its_effect(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    send = Transaction._send

    def counted(self: Transaction, *, commits: bool) -> None:
        sent.append(len(self._changes))
        send(self, commits=commits)

    monkeypatch.setattr(Transaction, "_send", counted)
    store = await Store.open(migrated_url, OPTIONS)
    await create(store, runner=None)
    costs: list[tuple[int, int, int]] = []
    pairs: tuple[tuple[EventRow | None, EventRow | None], ...] = (
        (None, None),
        (event_row(an_event()), event_row(an_event())),
    )
    for created, stopped in pairs:
        made = a_request()
        before = len(sent), store.commits
        await store.create_request(made, CreateRequest(), a_chain(made.id), RUNNER, event=created)
        await store.request_stop(made.id, stopped)
        own = sent[before[0] :]
        costs.append((len(own), store.commits - before[1], sum(own)))
    await store.close()
    (packets, commits, changes), with_events = costs
    assert with_events == (packets, commits, changes + 2)
