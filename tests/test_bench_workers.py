"""The benchmark of workers: its model of cores, and its tables."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.core_model import Costs, median_costs, predict, rate_of, use_of
from bench.workers import PLACES, WORKERS, Result, model_table, table_of

COSTS = Costs(manager=0.0005, runner=0.0002, database=0.0003, commits=0.1)


def test_the_cores_that_are_used_limit_the_rate() -> None:
    assert rate_of(COSTS, cores=2, use=0.8, workers=4, runners=1) == pytest.approx(1600)


def test_one_worker_or_one_runner_uses_at_most_its_core() -> None:
    assert rate_of(COSTS, cores=64, use=1, workers=1, runners=9) == pytest.approx(0.95 / 0.0005)
    assert rate_of(COSTS, cores=64, use=1, workers=64, runners=1) == pytest.approx(0.95 / 0.0002)


def test_a_measured_rate_says_which_share_of_the_cores_was_used() -> None:
    assert use_of(COSTS, cores=2, rate=1600) == pytest.approx(0.8)


def test_a_prediction_has_enough_workers_and_runners_for_its_rate() -> None:
    found = predict(COSTS, 16, use=0.8, most_commits=10_000)
    assert found.rate == pytest.approx(12_800)
    assert found.limit == "cores"
    carried = rate_of(COSTS, cores=16, use=0.8, workers=found.workers, runners=found.runners)
    assert carried == pytest.approx(found.rate)
    fewer = rate_of(COSTS, cores=16, use=0.8, workers=found.workers - 1, runners=found.runners)
    assert fewer < found.rate
    assert sum(found.shares.values()) == pytest.approx(0.8)


def test_the_commits_of_the_database_can_be_used_up_first() -> None:
    found = predict(COSTS, 64, use=0.8, most_commits=1000)
    assert found.rate == pytest.approx(10_000)
    assert found.limit == "commits"


def test_the_median_is_that_of_each_cost() -> None:
    costs = [Costs(1, 9, 5, 2), Costs(3, 7, 4, 1), Costs(2, 8, 6, 3)]
    assert median_costs(costs) == Costs(2, 8, 5, 2)


def test_the_tables_compare_workers_of_the_same_round_and_show_the_prediction() -> None:
    cpu = {"request manager": 0.0005, "job runner": 0.0002, "load": 0.0001, "database": 0.0003}
    results = [
        Result(workers, place, number, 2, base * workers, cpu, 0.1, 0.01, 0.02)
        for place in PLACES
        for workers in WORKERS
        for number, base in enumerate((100.0, 300.0, 200.0))
    ]
    console = Console(width=300, file=io.StringIO(), record=True)
    console.print(table_of(results))
    console.print(model_table(results, 10_000))
    text = console.export_text()
    assert "200 (100 to 300)" in text
    assert "4.00 (4.00 to 4.00)" in text  # The rates differ between rounds, their ratios do not.
    rows = [line for line in text.splitlines() if line.startswith("| 64 ")]
    assert len(rows) == 1
    assert "request manager 20 %" in rows[0]
