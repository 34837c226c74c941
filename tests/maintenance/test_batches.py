"""Deleting in batches: one transaction each, until nothing is left or an interruption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from spincycle_server.maintenance.batches import delete_in_batches
from tests.databases import engine_of


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A database with a table of ten rows."""
    opened = engine_of(f"sqlite:///{tmp_path / 'rows.db'}")
    with opened.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (number INTEGER)"))
        connection.execute(text("INSERT INTO numbers VALUES (1),(2),(3),(4),(5),(6),(7),(8),(9),(10)"))
    yield opened
    opened.dispose()


def delete_four(connection: Connection) -> int:
    statement = "DELETE FROM numbers WHERE number IN (SELECT number FROM numbers ORDER BY number LIMIT 4)"
    return connection.execute(text(statement)).rowcount


def left(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT COUNT(*) FROM numbers")).scalar_one())


def test_batches_are_deleted_until_nothing_is_left(engine: Engine) -> None:
    batches: list[int] = []
    assert delete_in_batches(engine, delete_four, batches.append, lambda: False, patience=1)
    assert (batches, left(engine)) == ([4, 4, 2], 0)


def test_an_interruption_keeps_what_is_deleted(engine: Engine) -> None:
    batches: list[int] = []
    assert not delete_in_batches(engine, delete_four, batches.append, lambda: bool(batches), patience=1)
    assert (batches, left(engine)) == ([4], 6)


def test_progress_is_told_after_the_commit(engine: Engine) -> None:
    remaining: list[int] = []
    delete_in_batches(
        engine, delete_four, lambda _: remaining.append(left(engine)), lambda: False, patience=1
    )
    assert remaining == [6, 2, 0]
