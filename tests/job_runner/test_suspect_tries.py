"""A chain whose runner died: its tries are recorded before they start, and a job that kills runners fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_runner_pb2 import Suspect
from spincycle_grpc.v1.runner_reports_pb2 import ChainReport
from spincycle_server.chain import RunningChain
from spincycle_server.job_runner.suspect_tries import SuspectRules
from spincycle_server.job_runner.suspect_turns import SuspectTurns
from tests.job_runner.test_traverser import Bench, chain_of, row

FOREVER = 1e6


def bench_of(chain: Any, suspect: Suspect, rules: SuspectRules | None = None) -> Bench:
    """Returns a chain without tries on a traverser, as a runner gets it after another runner died."""
    rules = rules or SuspectRules(SuspectTurns(FOREVER), max_crashes=3)
    return Bench(RunningChain.new(chain), suspect=suspect, suspect_rules=rules)


def parallel(*names: str) -> Any:
    return chain_of(names, [edge for name in names for edge in (("start", name), (name, "end"))])


def started_in(reports: list[ChainReport]) -> list[str]:
    return [one.job_id for report in reports for one in report.started]


async def commit_starts(bench: Bench) -> list[ChainReport]:
    """Acknowledges messages until one of them has a start. Returns their reports."""
    reports = await bench.commit()
    while not started_in(reports):
        reports += await bench.commit()
    return reports


async def test_a_try_starts_after_it_is_recorded() -> None:
    bench = bench_of(row("a"), Suspect())
    bench.start()
    await bench.is_quiet()
    assert bench.running_names() == set()
    batch = await bench.batch()
    (report,) = batch.message().chains
    assert [(one.job_id, getattr(one, "try"), one.shared) for one in report.started] == [("a", 1, False)]
    await bench.is_quiet()
    assert bench.running_names() == set()
    bench.outbox.settle(batch, [])
    await bench.running("a")
    bench.end("a")
    reports = await bench.commit_to_the_end()
    assert [report.cleared for report in reports if report.tries[0].entry.name == "a"] == [True]
    assert reports[-1].finish.state == state_pb2.STATE_COMPLETE


async def test_tries_start_in_turns_and_later_tries_start_freely() -> None:
    bench = bench_of(parallel("a", "b"), Suspect())
    bench.start()
    assert started_in(await commit_starts(bench)) == ["a"]
    await bench.running("a")
    await bench.is_quiet()
    assert bench.running_names() == {"a"}
    bench.end("a")
    reports = await commit_starts(bench)
    assert started_in(reports) == ["b"]
    assert not any(report.cleared for report in reports)
    await bench.running("b")
    bench.end("b")
    reports = await bench.commit_to_the_end()
    assert next(report.cleared for report in reports if report.tries)
    assert started_in(reports) == []


async def test_the_turns_are_shared_by_the_chains_of_a_runner() -> None:
    rules = SuspectRules(SuspectTurns(FOREVER))
    one, other = bench_of(row("a"), Suspect(), rules), bench_of(row("b"), Suspect(), rules)
    one.start()
    other.start()
    await commit_starts(one)
    await one.running("a")
    await other.is_quiet()
    assert other.outbox.take().entries == []
    statuses = await other.traverser.status()
    assert [status.status for status in statuses] == ["(waits for its turn, because its job runner died) "]
    one.end("a")
    await one.commit_to_the_end()
    assert started_in(await commit_starts(other)) == ["b"]
    await other.running("b")


async def test_a_try_that_starts_beside_another_suspect_says_so() -> None:
    bench = bench_of(parallel("a", "b"), Suspect(), SuspectRules(SuspectTurns(0.0)))
    bench.start()
    reports: list[ChainReport] = []
    while started_in(reports) != ["a", "b"]:
        reports += await bench.commit()
    assert [one.shared for report in reports for one in report.started] == [False, True]
    await bench.running("a", "b")


async def test_a_chain_is_stopped_while_its_try_waits_for_its_turn() -> None:
    rules = SuspectRules(SuspectTurns(FOREVER))
    turn = await rules.turns.take(is_alone=False)
    bench = bench_of(row("a"), Suspect(), rules)
    bench.start()
    await bench.is_quiet()
    bench.traverser.stop()
    reports = await bench.commit_to_the_end()
    assert [tried.entry.state for report in reports for tried in report.tries][-1] == state_pb2.STATE_STOPPED
    assert reports[-1].finish.state == state_pb2.STATE_STOPPED
    assert bench.runs == {}
    turn.end()
    assert not (await asyncio.wait_for(rules.turns.take(is_alone=True), 1)).is_shared


async def test_a_chain_is_stopped_while_its_try_is_recorded() -> None:
    bench = bench_of(row("a"), Suspect())
    bench.start()
    batch = await bench.batch()
    bench.traverser.stop()
    await bench.is_quiet()
    bench.outbox.settle(batch, [])
    reports = await bench.commit_to_the_end()
    assert reports[-1].finish.state == state_pb2.STATE_STOPPED
    assert bench.runs == {}


async def test_a_request_fails_after_too_many_crashes_without_another_try() -> None:
    bench = bench_of(parallel("a", "b"), Suspect(crashes=3, job_id="b"))
    bench.start()
    reports = await bench.commit_to_the_end()
    assert bench.runs == {}
    (tried,) = [tried for report in reports for tried in report.tries if tried.entry.name == "b"]
    assert tried.entry.state == state_pb2.STATE_FAIL
    assert "died 3 times in a row while this job ran" in tried.entry.error
    assert "job_runner.max_crashes" in tried.entry.error
    assert tried.is_last
    assert reports[-1].finish.state == state_pb2.STATE_FAIL


@pytest.mark.parametrize(
    "suspect",
    [Suspect(crashes=2, job_id="a"), Suspect(crashes=3, job_id="gone"), Suspect(alone=True)],
    ids=["fewer", "the-job-has-ended", "alone"],
)
async def test_a_request_with_fewer_crashes_runs_on(suspect: Suspect) -> None:
    bench = bench_of(row("a"), suspect)
    bench.start()
    await commit_starts(bench)
    await bench.running("a")
    bench.end("a")
    reports = await bench.commit_to_the_end()
    assert reports[-1].finish.state == state_pb2.STATE_COMPLETE


async def test_a_dropped_chain_reports_nothing_more() -> None:
    bench = bench_of(row("a"), Suspect())
    bench.start()
    await commit_starts(bench)
    await bench.running("a")
    bench.traverser.drop("for the test")
    await bench.is_quiet()
    assert bench.ended.is_set()
    assert bench.outbox.take().entries == []


async def test_a_chain_that_is_no_suspect_records_no_start() -> None:
    bench = Bench(RunningChain.new(row("a")))
    bench.start()
    await bench.running("a")
    bench.end("a", State.FAIL)
    reports = await bench.commit_to_the_end()
    assert started_in(reports) == []
    assert not any(report.cleared for report in reports)
