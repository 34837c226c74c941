"""The benchmark of one client: how marks become the times of steps."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.one_client import STEPS, steps_of, table_of

MARKED = [step for step in STEPS if step != "read"]


def test_each_step_lasts_from_the_one_before() -> None:
    marks = [(1000 + 10 * number, step) for number, step in enumerate(MARKED, 1)]
    [found] = steps_of([(1000, 2000)], marks)
    assert found["received"] == 10
    assert {found[step] for step in MARKED} == {10}
    assert found["read"] == 1000 - 10 * len(MARKED)
    assert sum(found[step] for step in STEPS) == found["in all"] == 1000


def test_marks_of_other_creates_do_not_count() -> None:
    first = [(10 * number, step) for number, step in enumerate(MARKED, 1)]
    second = [(at + 1000, step) for at, step in first]
    found = steps_of([(0, 500), (1000, 1500)], first + second)
    assert found[0] == found[1]


def test_a_create_without_a_mark_is_an_error() -> None:
    with pytest.raises(KeyError):
        steps_of([(0, 500)], [(10, "received")])


def test_the_table_has_medians() -> None:
    creates = [dict.fromkeys([*STEPS, "in all"], milliseconds * 1_000_000) for milliseconds in (1, 9, 2)]
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(table_of({"back to back": creates}))
    rows = [line for line in console.export_text().splitlines() if line.startswith("| the database answers")]
    assert "2.00" in rows[0]
