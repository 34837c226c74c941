"""Positions: what they have, and what lies between them."""

from __future__ import annotations

from sqlalchemy import select

from spincycle_server.database.transaction import Transaction
from spincycle_server.store.change_stamps import batch_of, stamp_of
from spincycle_server.store.positions import Position, WriterPosition, read_position
from spincycle_server.store.schema import writers
from spincycle_server.store.writer_row import PRUNE_PREFIX, WriterRow
from tests.databases import engine_of


def at(newest: int = 9, **batches: int) -> Position:
    return Position(
        {int(name[1:]): WriterPosition(batch, 0) for name, batch in batches.items()}, newest, read_at=1
    )


def test_a_position_has_the_stamps_up_to_each_writers_batch() -> None:
    position = at(w1=5, w2=0)
    assert position.has(stamp_of(1, 5))
    assert not position.has(stamp_of(1, 6))
    assert not position.has(stamp_of(2, 1))


def test_a_position_has_rows_without_a_stamp_and_those_of_writers_that_are_gone() -> None:
    assert at().has(None)
    assert at(newest=4).has(stamp_of(3, 99))
    assert not at(newest=4).has(stamp_of(5, 1)), "a writer that came later"


def test_the_stamps_between_two_positions() -> None:
    earlier, later = at(w1=5, w2=7), at(w1=8, w2=7, w3=2)
    assert later.spans_since(earlier) == [(stamp_of(1, 5), stamp_of(1, 8)), (stamp_of(3, 0), stamp_of(3, 2))]
    assert later.spans_since(later) == []
    assert earlier.spans_since(later) == [], "nothing is read again if a writer's batch was set back"


def test_only_a_writer_that_prunes_deletes() -> None:
    pruning = Position({1: WriterPosition(3, 0, prunes=True), 2: WriterPosition(9, 0)}, 9, 1)
    assert pruning.deletes_since(at(w1=2, w2=9))
    assert not pruning.deletes_since(at(w1=3, w2=1))


def test_the_position_of_an_empty_database_has_the_time_and_no_writers(migrated_url: str) -> None:
    engine = engine_of(migrated_url)
    with engine.connect() as connection:
        position = read_position(connection)
    engine.dispose()
    assert not position.writers
    assert position.read_at > 1_700_000_000_000_000


def test_the_position_names_every_writer_with_its_newest_committed_batch(migrated_url: str) -> None:
    engine = engine_of(migrated_url)
    rows = [WriterRow(engine), WriterRow(engine, PRUNE_PREFIX)]
    for row in rows:
        row.next_batch()
        row.ensure()
        with engine.connect() as connection:
            connection.begin()
            transaction = Transaction(connection, row.stamp)
            row.store_number(transaction)
            transaction.commit()
        row.next_batch()  # which is not committed
    with engine.connect() as connection:
        position = read_position(connection)
        stored = connection.execute(select(writers)).all()
    engine.dispose()
    numbers = [batch_of(row.stamp)[0] for row in rows]
    assert {number: writer.batch for number, writer in position.writers.items()} == dict.fromkeys(numbers, 1)
    assert [position.writers[number].prunes for number in numbers] == [False, True]
    assert position.newest == max(numbers)
    assert {writer.updated_at for writer in position.writers.values()} == {row.updated_at for row in stored}
