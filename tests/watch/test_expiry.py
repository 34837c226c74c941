"""When a position from a cursor can still be used."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spincycle_server.store.positions import MAX_AGE, Position, WriterPosition
from spincycle_server.watch.expiry import usable
from tests.watch.positions import HOUR, NOW, position


def test_a_position_of_the_same_writers_is_used_as_it_is() -> None:
    old = position(w1=5, w2=7)
    used = usable(old, position(w1=6, w2=7, read_at=NOW + HOUR))
    assert used == old


def test_a_position_is_valid_for_half_the_time_for_which_writers_are_kept() -> None:
    assert usable(position(w1=1), position(w1=1, read_at=NOW + MAX_AGE)) is not None
    assert usable(position(w1=1), position(w1=1, read_at=NOW + MAX_AGE + 1)) is None


@pytest.mark.parametrize(
    "old",
    [
        position(w1=6),
        position(w1=5, newest=10),
        position(w1=5, read_at=NOW + 2 * HOUR),
        Position({1: WriterPosition(5, digest=77)}, 9, NOW),
    ],
    ids=["a later batch", "a later writer", "a later time", "another writer with the same number"],
)
def test_a_position_of_another_database_is_refused(old: Position) -> None:
    assert usable(old, position(w1=5)) is None


def test_a_writer_that_came_after_the_cursor_counts_from_its_first_batch() -> None:
    used = usable(position(w1=5, newest=3), position(w1=5, w4=2, newest=4))
    assert used is not None
    assert 4 not in used.writers


def test_a_writer_that_deletes_requests_is_known_as_one_again() -> None:
    """Cursors do not say so. A stream that resumes in the middle of changes must look for deletions."""
    now = position(w1=5)
    now = replace(now, writers={1: now.writers[1]._replace(prunes=True)})
    used = usable(position(w1=4), now)
    assert used is not None
    assert used.deletes_since(position(w1=3))


def test_a_writer_whose_row_was_deleted_meanwhile_is_forgotten() -> None:
    used = usable(position(w1=5, w2=8), position(w1=5))
    assert used is not None
    assert set(used.writers) == {1}


def test_a_writer_without_room_in_the_cursor_counts_if_it_was_idle_since() -> None:
    idle = position(w1=5, w2=8, updated_at=NOW - 2 * HOUR)
    used = usable(position(w1=5), idle)
    assert used is not None
    assert used.writers[2].batch == 8
    assert usable(position(w1=5), position(w1=5, w2=8, updated_at=NOW + 1)) is None
