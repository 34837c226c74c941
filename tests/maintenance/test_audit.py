"""Operators read, prune and extend the audit log, on each database."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from spincycle_grpc.errors import FailedPreconditionError, InvalidArgumentError
from spincycle_grpc.v1.audit_pb2 import AuditEvent, AuditFilter
from spincycle_server.maintenance.audit import BLOCK, AuditTable, command_event, opened_audit
from spincycle_server.store.audit import record_event
from tests.databases import OPTIONS, SharedServers, engine_of
from tests.store.faults import FAULTS, CommitFaults
from tests.store.test_audit import an_event
from tests.store.test_audit_listing import START, at


@pytest.fixture
def audit(migrated_url: str) -> Iterator[AuditTable]:
    with opened_audit(migrated_url, OPTIONS) as table:
        yield table


def fill(url: str, events: int) -> None:
    """Stores events, one a microsecond, of which each two share their time."""
    engine = engine_of(url)
    with engine.begin() as connection:
        for number in range(events):
            event = an_event(occurred_at=at(number // 2), detail=str(number))
            record_event(connection, event)
    engine.dispose()


def numbers(audit: AuditTable, **wanted: object) -> list[int]:
    return sorted(int(event.detail) for event in audit.events(AuditFilter(**wanted)))  # type: ignore[arg-type]


def test_all_events_are_read_in_order_over_many_blocks(audit: AuditTable, migrated_url: str) -> None:
    fill(migrated_url, 2 * BLOCK + 7)
    times = [event.occurred_at.ToMicroseconds() for event in audit.events(AuditFilter())]
    assert times == sorted(times)
    assert numbers(audit) == list(range(2 * BLOCK + 7))
    assert numbers(audit, since=at(500), until=at(501)) == [1000, 1001]
    assert numbers(audit, user="wren") == []


@pytest.mark.parametrize("faults", FAULTS)
def test_old_events_are_deleted_in_bounded_transactions(
    audit: AuditTable, migrated_url: str, faults: str
) -> None:
    fill(migrated_url, 2 * BLOCK + 20)
    broken = CommitFaults(audit._engine, faults) if faults != "none" else None
    before = START + BLOCK + 5
    assert audit.count(before) == 2 * BLOCK + 10
    batches: list[int] = []
    assert audit.prune(before, batches.append, lambda: False)
    assert max(batches) <= BLOCK
    assert audit.count(before) == 0
    assert numbers(audit) == list(range(2 * BLOCK + 10, 2 * BLOCK + 20))
    assert broken is None or broken.count


def test_an_interrupted_run_continues_in_the_next_run(audit: AuditTable, migrated_url: str) -> None:
    fill(migrated_url, BLOCK + 1)
    batches: list[int] = []
    assert not audit.prune(START + BLOCK, batches.append, lambda: bool(batches))
    assert numbers(audit) == [BLOCK]
    assert audit.prune(START + BLOCK, batches.append, lambda: False)
    assert batches == [BLOCK, 1]


@pytest.mark.parametrize("faults", FAULTS)
def test_a_command_is_recorded_once_if_there_is_a_log(
    audit: AuditTable, migrated_url: str, faults: str
) -> None:
    event = command_event("spincycle prune", "delete 1 request")
    audit.record(event)
    assert list(audit.events(AuditFilter())) == []
    fill(migrated_url, 1)
    broken = CommitFaults(audit._engine, faults) if faults != "none" else None
    for _ in range(2):  # With faults, every other commit fails.
        audit.record(event)
    assert broken is None or broken.count
    assert list(audit.events(AuditFilter(operation="spincycle prune"))) == [event]


def test_the_event_of_a_command_says_who_ran_it_and_where() -> None:
    event = command_event("spincycle token create", "name finch")
    assert event.user
    assert event.peer
    assert event.HasField("occurred_at")
    assert re.fullmatch("[0-9a-f]{20}", event.id)
    for field in ("user", "peer", "occurred_at", "id"):
        event.ClearField(field)
    assert event == AuditEvent(
        auth_method="operator", transport="command", operation="spincycle token create", outcome="OK",
        count=1, detail="name finch",
    )  # fmt: skip


def test_databases_that_cannot_be_used_are_refused(database_servers: SharedServers, tmp_path: object) -> None:
    outdated = f"sqlite:///{tmp_path}/none.db"
    with pytest.raises(FailedPreconditionError, match="spincycle migrate"), opened_audit(outdated, OPTIONS):
        pass
    with pytest.raises(InvalidArgumentError), opened_audit("oracle://x/y", OPTIONS):
        pass
