"""Pages of the audit log, compared with a slow model, and stable while events arrive."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.v1.audit_pb2 import AuditEvent, AuditFilter
from spincycle_server.store.audit import record_event
from spincycle_server.store.audit_listing import DEFAULT_PAGE, MAX_PAGE, Position, list_events, next_events
from tests.databases import engine_of
from tests.store.test_audit import an_event

START = 1_800_000_000_000_000
IDS = ("9vb2d3q0c7k5r1n8m4tg", "9vb2d3q0c7k5r1n8m4t0")


def at(microseconds: int, nanos: int = 0) -> Timestamp:
    time = Timestamp()
    time.FromNanoseconds((START + microseconds) * 1000 + nanos)
    return time


def random_event(dice: random.Random) -> AuditEvent:
    """Returns an event that shares its values, also its time, with others."""
    return an_event(
        dice.choice(["RequestManager.Create", "RequestManager.Stop"]),
        occurred_at=at(dice.randrange(20)),
        user=dice.choice(["finch", "finch ", "Finch", ""]),
        request_id=dice.choice([*IDS, ""]),
        outcome=dice.choice(["OK", "ACCESS_DENIED"]),
    )


def random_filter(dice: random.Random) -> AuditFilter:
    wanted = AuditFilter(limit=dice.choice([1, 7, 50]))
    if dice.random() < 0.5:
        wanted.since.CopyFrom(at(dice.randrange(20), dice.choice([0, 1])))
    if dice.random() < 0.5:
        wanted.until.CopyFrom(at(dice.randrange(20), dice.choice([0, 999])))
    if dice.random() < 0.5:
        wanted.user = dice.choice(["finch", "finch ", "Finch", "wren"])
    if dice.random() < 0.4:
        wanted.request_id = dice.choice([*IDS, "other", "ü", IDS[0].upper(), IDS[0] + " "])
    if dice.random() < 0.3:
        wanted.operation = "RequestManager.Stop"
    if dice.random() < 0.3:
        wanted.outcome = "ACCESS_DENIED"
    return wanted


def expected(events: list[AuditEvent], wanted: AuditFilter) -> list[str]:
    """Returns the ids of the events that match, newest first."""
    matching = [
        event
        for event in events
        if (not wanted.HasField("since") or event.occurred_at.ToNanoseconds() >= wanted.since.ToNanoseconds())
        and (not wanted.HasField("until") or event.occurred_at.ToNanoseconds() < wanted.until.ToNanoseconds())
        and wanted.user in ("", event.user)
        and wanted.request_id in ("", event.request_id)
        and wanted.operation in ("", event.operation)
        and wanted.outcome in ("", event.outcome)
    ]
    matching.sort(key=lambda event: (event.occurred_at.ToNanoseconds(), event.id), reverse=True)
    return [event.id for event in matching]


def all_pages(connection: Connection, wanted: AuditFilter) -> list[str]:
    found: list[str] = []
    while True:
        page = list_events(connection, wanted)
        assert len(page.events) <= wanted.limit
        found += [event.id for event in page.events]
        wanted.page_token = page.next_token
        if not page.next_token:
            return found


def all_oldest_first(connection: Connection, wanted: AuditFilter) -> list[str]:
    found: list[str] = []
    position: Position | None = None
    while True:
        events, position = next_events(connection, wanted, position, 7)
        if not events:
            return found
        found += [event.id for event in events]


def test_pages_have_every_matching_event_once_in_both_orders(migrated_url: str) -> None:
    dice = random.Random(5)
    engine = engine_of(migrated_url)
    with engine.connect() as connection:
        for _ in range(120):
            record_event(connection, random_event(dice))
        stored = list_events(connection, AuditFilter(limit=MAX_PAGE)).events
        for _ in range(60):
            wanted = random_filter(dice)
            ids = expected(stored, wanted)
            assert all_oldest_first(connection, wanted) == ids[::-1], wanted
            assert all_pages(connection, wanted) == ids, wanted
        connection.rollback()
    engine.dispose()


def test_events_that_arrive_later_do_not_shift_the_next_page(migrated_url: str) -> None:
    engine = engine_of(migrated_url)
    with engine.connect() as connection:
        for number in range(6):
            record_event(connection, an_event(occurred_at=at(number)))
        before = all_pages(connection, AuditFilter(limit=10))
        first = list_events(connection, AuditFilter(limit=3))
        for _ in range(3):
            record_event(connection, an_event(occurred_at=at(100)))
        second = list_events(connection, AuditFilter(limit=3, page_token=first.next_token))
        assert [event.id for event in first.events + second.events] == before
        assert second.next_token == ""
        connection.rollback()
    engine.dispose()


def test_a_page_is_bounded(migrated_url: str) -> None:
    engine = engine_of(migrated_url)
    with engine.connect() as connection:
        for number in range(MAX_PAGE + 1):
            record_event(connection, an_event(occurred_at=at(number)))
        for limit, size in ((0, DEFAULT_PAGE), (MAX_PAGE, MAX_PAGE), (2**64 - 1, MAX_PAGE)):
            page = list_events(connection, AuditFilter(limit=limit))
            assert len(page.events) == size
            assert page.next_token
        connection.rollback()
    engine.dispose()


@pytest.mark.parametrize(
    "wrong",
    [
        {"page_token": "1"},
        {"page_token": "-1-" + "0" * 20},
        {"page_token": "9" * 19 + "-" + "0" * 20},
        {"page_token": "1-" + "x" * 20},
        {"page_token": "\N{ARABIC-INDIC DIGIT ONE}-" + "0" * 20},
        {"since": Timestamp(seconds=2**62)},
        {"until": Timestamp(nanos=-1)},
    ],
)
def test_a_malformed_filter_is_refused(migrated_url: str, wrong: dict[str, Any]) -> None:
    engine = engine_of(migrated_url)
    with engine.connect() as connection, pytest.raises(InvalidArgumentError) as raised:
        list_events(connection, AuditFilter(**wrong))
    assert raised.value.reason == "BAD_FILTER"
    engine.dispose()
