"""The row that shows whether a commit happened, on each database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import bindparam, delete, event, insert, select, text, update
from sqlalchemy.engine import Engine

from spincycle_server.database.engine import DatabaseOptions, make_engine, parse_url
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store import writer_row
from spincycle_server.store.change_stamps import batch_of
from spincycle_server.store.schema import runners, writers
from spincycle_server.store.writer_row import WriterRow
from tests.databases import SERVERS, SharedServers
from tests.limits import STEP
from tests.store.fake_time import FakeTime

HOUR = 3600.0

SET_URL = RowStatement(
    lambda _: update(runners).where(runners.c.runner_id == bindparam("key")).values(url=bindparam("new_url"))
)


def engine_of(url: str) -> Engine:
    """Returns an engine whose lock timeout only keeps a test from waiting forever."""
    return make_engine(parse_url(url), DatabaseOptions(timeout=STEP), connections=4, reads=False)


@pytest.fixture
def engine(migrated_url: str) -> Iterator[Engine]:
    engine = engine_of(migrated_url)
    yield engine
    engine.dispose()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(writer_row, "time", clock)
    return clock


def write(engine: Engine, row: WriterRow, *, commits: bool = True) -> None:
    """Runs a transaction of the present batch, which only stores the number."""
    with engine.connect() as connection:
        connection.begin()
        transaction = Transaction(connection)
        row.store_number(transaction)
        if commits:
            transaction.commit()
        else:
            transaction.flush()


def next_batch(engine: Engine, row: WriterRow) -> None:
    row.next_batch()
    row.ensure()


def age_rows(engine: Engine, hours: float) -> None:
    """Makes all rows look older than they are."""
    with engine.begin() as connection:
        older = writers.c.updated_at - int(hours * HOUR * 1_000_000)
        connection.execute(update(writers).values(updated_at=older))


def count_rows(engine: Engine) -> int:
    with engine.connect() as connection:
        return len(connection.execute(select(writers)).all())


def test_a_batch_is_committed_after_its_own_commit_and_not_before(engine: Engine) -> None:
    row = WriterRow(engine)
    for _ in range(3):
        next_batch(engine, row)
        assert not row.is_committed()
        write(engine, row, commits=False)
        assert not row.is_committed()
        write(engine, row)
        assert row.is_committed()


def test_a_batch_that_failed_is_not_committed_by_the_next_one(engine: Engine) -> None:
    row = WriterRow(engine)
    next_batch(engine, row)
    write(engine, row, commits=False)
    next_batch(engine, row)
    assert not row.is_committed()
    write(engine, row)
    assert row.is_committed()


def test_commits_of_other_writers_do_not_count(engine: Engine) -> None:
    row, other = WriterRow(engine), WriterRow(engine)
    next_batch(engine, row)
    next_batch(engine, other)
    write(engine, other)
    assert other.is_committed()
    assert not row.is_committed()


@pytest.mark.parametrize("kind", SERVERS)
def test_a_lookup_waits_for_a_transaction_whose_changes_are_still_pending(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    """The number is first in the packet, so the row is locked while the server makes the other changes."""
    with database_servers.migrated(kind, tmp_path) as url:
        engine = engine_of(url)
        row = WriterRow(engine)
        next_batch(engine, row)
        values = {"runner_id": "r1", "url": "", "grpc_address": "", "draining": False, "lease_expires_at": 0}
        with engine.begin() as connection:
            connection.execute(insert(runners).values(values))

        def write_both() -> None:
            with engine.connect() as connection:
                connection.begin()
                transaction = Transaction(connection)
                transaction.change(SET_URL, [{"key": "r1", "new_url": "http://new"}])
                row.store_number(transaction)
                transaction.commit()

        with ThreadPoolExecutor(2) as pool:
            with engine.connect() as holder:
                holder.execute(select(runners).with_for_update())
                writing = pool.submit(write_both)
                wait_for(lambda: lock_waits(engine) == 1)
                looking = pool.submit(row.is_committed)
                wait_for(lambda: lock_waits(engine) == 2 or looking.done())
                assert not writing.done()
            writing.result(STEP)
            assert looking.result(STEP)
        engine.dispose()


def lock_waits(engine: Engine) -> int:
    """Returns how many transactions wait for a lock of a row."""
    queries = {
        "mysql": "SELECT variable_value FROM information_schema.global_status "
        "WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'",
        "postgresql": "SELECT COUNT(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()",
    }
    with engine.connect() as connection:
        return int(connection.execute(text(queries[engine.dialect.name])).scalar_one())


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STEP
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_row_that_others_deleted_is_created_again_before_the_next_transaction(
    engine: Engine, clock: FakeTime
) -> None:
    row = WriterRow(engine)
    next_batch(engine, row)
    write(engine, row)
    clock.now += 25 * HOUR
    age_rows(engine, 25)
    next_batch(engine, WriterRow(engine))
    assert count_rows(engine) == 1  # The other's row.
    next_batch(engine, row)
    assert count_rows(engine) == 2
    assert not row.is_committed()
    write(engine, row)
    assert row.is_committed()


def test_a_row_is_refreshed_when_half_of_its_life_has_passed(engine: Engine, clock: FakeTime) -> None:
    row = WriterRow(engine)
    next_batch(engine, row)
    clock.now += 20 * HOUR
    age_rows(engine, 20)
    next_batch(engine, row)  # The batch fails before its transaction reaches the database.
    clock.now += 5 * HOUR
    age_rows(engine, 5)
    next_batch(engine, WriterRow(engine))
    next_batch(engine, row)
    write(engine, row)
    assert row.is_committed()


def test_others_keep_a_row_that_is_younger_than_a_day(engine: Engine) -> None:
    row = WriterRow(engine)
    next_batch(engine, row)
    write(engine, row)
    age_rows(engine, 23.9)
    next_batch(engine, WriterRow(engine))
    assert row.is_committed()


def test_a_commit_refreshes_the_row(engine: Engine) -> None:
    row = WriterRow(engine)
    next_batch(engine, row)
    age_rows(engine, 23.9)
    write(engine, row)
    age_rows(engine, 23.9)
    next_batch(engine, WriterRow(engine))
    assert row.is_committed()


def test_a_writer_that_commits_does_not_check_its_row(engine: Engine, clock: FakeTime) -> None:
    row = WriterRow(engine)
    next_batch(engine, row)
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    for _ in range(3):
        clock.now += 11 * HOUR
        next_batch(engine, row)
        assert not statements
        row.committed()
    clock.now += 13 * HOUR
    next_batch(engine, row)
    assert statements


def number_of(row: WriterRow) -> int:
    return batch_of(row.stamp)[0]


def test_each_row_has_a_number_that_no_other_had(engine: Engine) -> None:
    rows = [WriterRow(engine) for _ in range(3)]
    for row in rows:
        next_batch(engine, row)
    numbers = [number_of(row) for row in rows]
    assert len(set(numbers)) == 3
    with engine.begin() as connection:
        connection.execute(delete(writers))
    late = WriterRow(engine)
    next_batch(engine, late)
    assert number_of(late) > max(numbers)


def test_a_row_that_was_deleted_gets_a_new_number(engine: Engine, clock: FakeTime) -> None:
    row = WriterRow(engine)
    next_batch(engine, row)
    write(engine, row)
    before = number_of(row)
    with engine.begin() as connection:
        connection.execute(delete(writers))
    clock.sleep(13 * HOUR)
    next_batch(engine, row)
    assert number_of(row) > before


def test_an_abandoned_row_is_continued_by_one_with_another_number(engine: Engine) -> None:
    row = WriterRow(engine)
    next_batch(engine, row)
    write(engine, row)
    before = number_of(row)
    row.abandon()
    next_batch(engine, row)
    write(engine, row)
    assert row.is_committed()
    assert number_of(row) > before
    assert count_rows(engine) == 2


def test_a_late_transaction_of_an_earlier_batch_does_not_set_the_number_back(engine: Engine) -> None:
    row = WriterRow(engine)
    next_batch(engine, row)
    write(engine, row)
    next_batch(engine, row)
    write(engine, row)
    row._number -= 1
    write(engine, row)  # as the server runs a packet that waited in a broken connection
    row._number += 1
    assert row.is_committed()


def test_after_the_last_number_of_a_batch_a_new_row_is_used(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_row, "MAX_BATCH", 2)
    row = WriterRow(engine)
    stamps = []
    for _ in range(5):
        next_batch(engine, row)
        write(engine, row)
        stamps.append(row.stamp)
    assert stamps == sorted(set(stamps))
    assert count_rows(engine) == 3
