"""The traverser: commits that jobs wait for, waits between tries, statuses, and lost assignments."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest
import structlog

from spincycle_grpc.jobs import Job, JobId, Return
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.job_runner_pb2 import Suspect
from spincycle_grpc.v1.runner_reports_pb2 import (
    REFUSAL_REASON_INVALID,
    REFUSAL_REASON_STALE,
    Assignment,
    ChainReport,
    RefusedReport,
)
from spincycle_server.builtin_jobs import builtin_factory
from spincycle_server.call_threads import CallThreads
from spincycle_server.chain import Actions, RunningChain
from spincycle_server.job_runner import chain_reports as chain_reports_module
from spincycle_server.job_runner.outbox import Batch, Outbox
from spincycle_server.job_runner.suspect_tries import SuspectRules
from spincycle_server.job_runner.traverser import Traverser
from spincycle_server.job_runner.user_job import TryResources
from tests.chain.test_finals import AROUND, BODY, CLEAN, FINAL, WORK
from tests.chain.test_finals import a_chain as chain_with_finally
from tests.limits import STEP

ASSIGNMENT = Assignment(request_id="request", epoch=3)


class Worker(Job):
    """A job that runs until the test ends or stops it."""

    def __init__(self, job_id: JobId, runs: dict[str, asyncio.Future[State]]) -> None:
        self.id = job_id
        self._runs = runs
        self.seen: dict[str, Any] = {}

    async def run(self, job_data: dict[str, Any]) -> Return:
        self.seen = dict(job_data)
        self._runs[self.id.name] = asyncio.get_running_loop().create_future()
        state = await self._runs[self.id.name]
        job_data[self.id.name] = "done"
        return Return(state, 0 if state is State.COMPLETE else 1)

    async def stop(self) -> None:
        self._runs[self.id.name].set_result(State.STOPPED)

    def status(self) -> str:
        return f"working as {self.id.name}"


class Bench:
    """A chain on a traverser. The test controls its jobs and its reports.

    Args:
        chain: The chain.
        assignment: Which assignment of it runs here.
        stop_limit: Seconds in which a job must stop.
        suspect: What is known of the chain if its runner died.
        suspect_rules: The turns and limits of suspects.
        options: Of the outbox.
    """

    def __init__(
        self,
        chain: RunningChain,
        assignment: Assignment = ASSIGNMENT,
        *,
        stop_limit: float = 5,
        suspect: Suspect | None = None,
        suspect_rules: SuspectRules | None = None,
        **options: Any,
    ) -> None:
        self._assignment = assignment
        self._claimed: list[ChainReport] = []
        self.runs: dict[str, asyncio.Future[State]] = {}
        self.jobs: dict[str, Worker] = {}
        self.outbox = Outbox(**options)
        self.may_start = True
        self.may_make = threading.Event()
        self.may_make.set()
        self.making = 0
        self.ended = asyncio.Event()
        self.traverser = Traverser(
            chain,
            assignment,
            TryResources(
                factory=self._make,
                runs=CallThreads("run", 1),
                calls=CallThreads("call", 4),
                statuses=CallThreads("status", 4),
                max_output=1000,
                stop_limit=stop_limit,
            ),
            self.outbox,
            noop_types=frozenset({"noop"}),
            may_start=lambda: self.may_start,
            suspect=suspect,
            suspect_rules=suspect_rules,
        )

    def _make(self, job_id: JobId) -> Job:
        self.making += 1
        self.may_make.wait(STEP)
        if job_id.type != "work":
            return builtin_factory(job_id)
        self.jobs[job_id.name] = Worker(job_id, self.runs)
        return self.jobs[job_id.name]

    def start(self, *, is_claimed: bool = True) -> None:
        """Starts the chain, and confirms its assignment together with its first reports."""
        self.traverser.start(self.ended.set)
        if is_claimed and self._assignment.epoch:
            batch = self.outbox.take()
            self._claimed = [*batch.message().chains]
            self.outbox.settle(batch, [])

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(STEP):
            while not condition():  # noqa: ASYNC110 (many conditions, most of them none of an event)
                await asyncio.sleep(0.001)

    async def running(self, *names: str) -> None:
        """Returns when these jobs run."""
        await self.until(lambda: set(names) <= {name for name, run in self.runs.items() if not run.done()})

    async def is_quiet(self) -> None:
        """Waits until everything that needs no further event has happened."""
        for _ in range(50):
            await asyncio.sleep(0.001)

    def running_names(self) -> set[str]:
        return {name for name, run in self.runs.items() if not run.done()}

    def end(self, name: str, state: State = State.COMPLETE) -> None:
        self.runs[name].set_result(state)

    async def batch(self) -> Batch:
        async with asyncio.timeout(STEP):
            await self.outbox.wait_filled()
        return self.outbox.take()

    async def commit(self) -> list[ChainReport]:
        """Takes in what was reported, and acknowledges it, if it was not when the chain was started."""
        reports, self._claimed = self._claimed, []
        batch = self.outbox.take() if reports else await self.batch()
        self.outbox.settle(batch, [])
        return [*reports, *batch.message().chains]

    async def commit_to_the_end(self) -> list[ChainReport]:
        reports, self._claimed = self._claimed, []
        while not self.ended.is_set():
            try:
                async with asyncio.timeout(0.02):
                    await self.outbox.wait_filled()
            except TimeoutError:
                continue
            reports += await self.commit()
            await asyncio.sleep(0)
        return reports


def chain_of(
    names: Iterable[str], edges: Iterable[tuple[str, str]], retry: dict[str, str] | None = None
) -> JobChain:
    """Returns a chain of one sequence: start, the jobs, end. `retry` maps jobs to their retry waits."""
    chain = JobChain(request_id="request")
    for name in ["start", *names, "end"]:
        job = chain.jobs[name]
        job.id, job.name, job.sequence_id = name, name, "start"
        job.type = "noop" if name in {"start", "end"} else "work"
        job.state = state_pb2.STATE_PENDING
        if retry and name in retry:
            job.retry, job.retry_wait = 1, retry[name]
    for before, after in edges:
        chain.adjacency_list[before].ids.append(after)
    return chain


def row(*names: str, **options: Any) -> JobChain:
    """Returns a chain whose jobs run one after another."""
    path = ["start", *names, "end"]
    return chain_of(names, itertools.pairwise(path), **options)


def side_by_side(*names: str, **options: Any) -> JobChain:
    """Returns a chain whose jobs run in parallel."""
    edges = [edge for name in names for edge in (("start", name), (name, "end"))]
    return chain_of(names, edges, **options)


@pytest.fixture
async def bench_of() -> AsyncIterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(chain: JobChain, *, is_claimed: bool = True, **options: Any) -> Bench:
        bench = Bench(RunningChain.new(chain), **options)
        benches.append(bench)
        bench.start(is_claimed=is_claimed)
        return bench

    yield make
    for bench in benches:
        bench.traverser.drop("the test is over")
        await bench.until(bench.ended.is_set)


MakeBench = Callable[..., Bench]


async def test_a_job_starts_only_after_the_job_before_it_is_committed(bench_of: MakeBench) -> None:
    bench = bench_of(row("a", "b"))
    await bench.running("a")
    await bench.commit()
    bench.end("a")
    await bench.until(lambda: "a" not in bench.running_names())
    batch = await bench.batch()
    await bench.is_quiet()
    assert "b" not in bench.runs
    bench.outbox.settle(batch, [])
    await bench.running("b")
    assert bench.jobs["b"].seen == {"a": "done"}


async def test_a_chain_that_has_ended_is_freed_without_the_garbage_collector() -> None:
    """Collecting each chain with its messages took a Job Runner a tenth of its CPU time."""
    gc.collect()
    gc.disable()
    try:
        bench = Bench(RunningChain.new(row("a")))
        bench.start()
        await bench.running("a")
        bench.end("a")
        await bench.commit_to_the_end()
        await bench.is_quiet()
        traverser = weakref.ref(bench.traverser)
        del bench.traverser
        assert traverser() is None
    finally:
        gc.enable()


async def test_a_chain_is_dropped_while_its_end_waits_for_its_commit() -> None:
    bench = Bench(RunningChain.new(row("a")))
    bench.start()
    await bench.running("a")
    await bench.commit()
    bench.end("a")
    bench.outbox.settle(await bench.batch(), [])
    end = await bench.batch()
    assert end.message().chains[0].HasField("finish")
    bench.outbox.put_back(end)
    assert not bench.ended.is_set()
    bench.traverser.drop("the test drops it")
    assert bench.ended.is_set()
    assert not bench.outbox.take().entries


async def test_the_commit_of_a_noop_is_not_awaited(bench_of: MakeBench) -> None:
    bench = bench_of(row("a"), assignment=Assignment(request_id="request"))
    await bench.running("a")  # behind the noop that starts the sequence, though nobody took a report


async def test_no_job_of_a_sequence_with_finally_runs_before_its_begin_is_committed(
    bench_of: MakeBench,
) -> None:
    """Otherwise nobody would know after a crash that the part is owed, or that it has begun."""
    chain = chain_with_finally()
    for job in chain.jobs.values():
        job.type = "work" if job.id in (WORK, CLEAN) else "noop"
    bench = bench_of(chain, assignment=Assignment(request_id="request"))
    await bench.is_quiet()
    assert not bench.runs
    await bench.commit()
    await bench.running(WORK)
    bench.traverser.stop()
    await bench.until(lambda: not bench.running_names())
    await bench.commit()
    await bench.is_quiet()
    assert CLEAN not in bench.runs
    await bench.commit()
    await bench.running(CLEAN)
    bench.end(CLEAN)
    assert (await bench.commit_to_the_end())[-1].finish.state == state_pb2.STATE_STOPPED


@pytest.mark.parametrize(
    ("killer", "end", "failed"),
    [(WORK, state_pb2.STATE_STOPPED, set()), (CLEAN, state_pb2.STATE_FAIL, {CLEAN})],
    ids=["a job that is over", "a job of finally"],
)
async def test_only_a_job_that_would_run_is_given_up_in_a_chain_that_ends(
    killer: str, end: state_pb2.State.ValueType, failed: set[str]
) -> None:
    chain = chain_with_finally()
    begun = RunningChain.new(chain)
    begun.start(0)
    for job_id in (AROUND, BODY):
        begun.try_finished(job_id, State.COMPLETE, 0)
    if killer == CLEAN:
        begun.stop(0)
        begun.try_finished(WORK, State.STOPPED, 0)
        begun.try_finished(FINAL, State.COMPLETE, 0)
    bench = Bench(RunningChain.resume(begun.suspended(0)), suspect=Suspect(crashes=3, job_id=killer))
    bench.traverser.start(bench.ended.set, State.STOPPED)
    ending = asyncio.create_task(bench.commit_to_the_end())
    async with asyncio.timeout(STEP):
        while not ending.done():
            for name in bench.running_names():
                bench.end(name)
            await asyncio.sleep(0.001)
    reports = ending.result()
    assert [report.finish.state for report in reports if report.WhichOneof("end")] == [end]
    tries = [tried.entry for report in reports for tried in report.tries]
    assert {entry.job_id for entry in tries if entry.state == state_pb2.STATE_FAIL} == failed
    assert WORK not in bench.runs


async def test_no_job_runs_before_a_request_manager_confirms_the_assignment(
    bench_of: MakeBench,
) -> None:
    bench = bench_of(row("a"), is_claimed=False)
    for _ in range(3):
        batch = await bench.batch()
        await bench.is_quiet()
        bench.outbox.put_back(batch)
        await bench.is_quiet()
        assert not bench.runs
    batch = await bench.batch()
    assert [tried.entry.job_id for tried in batch.message().chains[0].tries] == ["start"]
    bench.outbox.settle(batch, [])
    await bench.running("a")


async def test_a_chain_that_arrives_too_late_runs_no_job(bench_of: MakeBench) -> None:
    bench = bench_of(row("a"), is_claimed=False)
    batch = await bench.batch()
    bench.outbox.settle(batch, [RefusedReport(assignment=ASSIGNMENT, reason=REFUSAL_REASON_STALE)])
    await bench.until(bench.ended.is_set)
    assert not bench.runs
    assert not bench.outbox.take().entries


async def test_a_chain_of_noops_that_arrives_too_late_is_dropped(bench_of: MakeBench) -> None:
    bench = bench_of(row(), is_claimed=False)  # It has ended before the assignment could be confirmed.
    batch = await bench.batch()
    assert batch.message().chains[0].HasField("finish")
    assert not bench.ended.is_set()
    bench.outbox.settle(batch, [RefusedReport(assignment=ASSIGNMENT, reason=REFUSAL_REASON_STALE)])
    await bench.until(bench.ended.is_set)
    assert not bench.outbox.take().entries


async def test_a_chain_continues_only_after_its_assignment_is_confirmed(bench_of: MakeBench) -> None:
    before = bench_of(row("a", "b"))
    await before.running("a")
    before.traverser.suspend()
    reports = await before.commit_to_the_end()
    bench = Bench(RunningChain.resume(reports[-1].suspended))
    bench.start(is_claimed=False)
    batch = await bench.batch()
    await bench.is_quiet()
    assert not bench.runs
    assert not batch.message().chains[0].tries
    bench.outbox.settle(batch, [])
    await bench.running("a")
    bench.traverser.drop("the test is over")
    await bench.until(bench.ended.is_set)


async def test_unacknowledged_reports_start_no_job(bench_of: MakeBench) -> None:
    bench = bench_of(row("a", "b"))
    await bench.running("a")
    bench.end("a")
    for _ in range(3):
        batch = await bench.batch()
        bench.outbox.put_back(batch)
        await bench.is_quiet()
        assert "b" not in bench.runs
    await bench.commit()
    await bench.running("b")


async def test_jobs_end_in_the_order_of_their_reports(bench_of: MakeBench) -> None:
    bench = bench_of(side_by_side("a", "b", "c"))
    await bench.running("a", "b", "c")
    for name in ("c", "a", "b"):
        bench.end(name)
        await bench.until(lambda name=name: name not in bench.running_names())  # type: ignore[misc]
        await bench.is_quiet()
    reports = await bench.commit_to_the_end()
    tries = [tried for report in reports for tried in report.tries]
    assert [tried.entry.job_id for tried in tries] == ["start", "c", "a", "b", "end"]
    assert [tried.ordinal for tried in tries] == [1, 2, 3, 4, 5]


async def test_the_last_report_has_the_state_and_the_count(bench_of: MakeBench) -> None:
    bench = bench_of(row("a"))
    await bench.running("a")
    bench.end("a")
    reports = await bench.commit_to_the_end()
    assert [report.HasField("finish") for report in reports] == [False] * (len(reports) - 1) + [True]
    assert reports[-1].finish.state == state_pb2.STATE_COMPLETE
    assert reports[-1].finished_jobs == 3
    assert all(report.assignment == ASSIGNMENT for report in reports)


async def test_a_chain_is_held_until_its_last_report_is_committed(bench_of: MakeBench) -> None:
    bench = bench_of(row("a"))
    await bench.running("a")
    bench.end("a", State.FAIL)
    await bench.is_quiet()
    await bench.commit()
    batch = await bench.batch()
    assert batch.message().chains[0].finish.state == state_pb2.STATE_FAIL
    await bench.is_quiet()
    assert not bench.ended.is_set()
    bench.outbox.settle(batch, [])
    await bench.until(bench.ended.is_set)


async def test_a_retry_wait_delays_the_next_try_and_shows_in_the_status(bench_of: MakeBench) -> None:
    bench = bench_of(row("a", retry={"a": "150ms"}))
    await bench.running("a")
    await bench.commit()
    [before] = await bench.traverser.status()
    bench.end("a", State.FAIL)
    await bench.commit()
    await bench.is_quiet()
    [between] = await bench.traverser.status()
    await bench.running("a")
    [after] = await bench.traverser.status()
    assert [one.status for one in (before, between, after)] == [
        "working as a", "(retry sleep) working as a", "working as a",
    ]  # fmt: skip
    assert [getattr(one, "try") for one in (before, between, after)] == [1, 1, 2]
    assert after.started_at - before.started_at >= 150_000_000
    assert (before.request_id, before.job_id, before.type, before.state) == (
        "request", "a", "work", state_pb2.STATE_RUNNING,
    )  # fmt: skip


async def test_running_jobs_and_their_reports_have_the_paths_of_their_jobs(bench_of: MakeBench) -> None:
    chain = row("a")
    chain.path_labels.update({"s": "restart", "a": "host web7"})
    chain.jobs["a"].sequence_id = "s"
    bench = bench_of(chain)
    await bench.running("a")
    [status] = await bench.traverser.status()
    assert list(status.path) == ["restart", "host web7", "a"]
    bench.end("a", State.FAIL)
    reports = await bench.commit_to_the_end()
    reported = {tried.entry.job_id: tried.entry.path for report in reports for tried in report.tries}
    assert reported["a"] == status.path


async def test_a_stop_during_a_retry_wait_ends_the_chain_at_once(bench_of: MakeBench) -> None:
    bench = bench_of(row("a", retry={"a": "1h"}))
    await bench.running("a")
    await bench.commit()
    bench.end("a", State.FAIL)
    await bench.commit()
    await bench.is_quiet()
    bench.traverser.stop()
    reports = await bench.commit_to_the_end()
    assert reports[-1].finish.state == state_pb2.STATE_STOPPED
    assert await bench.traverser.status() == []


async def test_a_stop_before_the_failed_try_is_committed_ends_the_chain_like_a_stop_after_it(
    bench_of: MakeBench,
) -> None:
    bench = bench_of(row("a", retry={"a": "1h"}))
    await bench.running("a")
    await bench.commit()
    bench.end("a", State.FAIL)
    batch = await bench.batch()
    assert [State(tried.entry.state) for tried in batch.message().chains[0].tries] == [State.FAIL]
    bench.traverser.stop()
    bench.outbox.settle(batch, [])
    reports = await bench.commit_to_the_end()
    assert reports[-1].finish.state == state_pb2.STATE_STOPPED


async def test_a_job_that_does_not_stop_fails_the_chain_whatever_becomes_of_its_runner(
    bench_of: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ignore(_: Worker) -> None:
        pass

    monkeypatch.setattr(Worker, "stop", ignore)
    chain = row("a", retry={"a": "1h"})
    bench = bench_of(chain, stop_limit=0.05)
    await bench.running("a")
    bench.traverser.suspend()
    bench.traverser.stop()
    reports = await bench.commit_to_the_end()
    assert reports[-1].finish.state == state_pb2.STATE_FAIL
    records = [(ASSIGNMENT.epoch, tried) for report in reports for tried in report.tries]
    assert records[-1][1].entry.error == "did not stop within 0.05s"
    assert RunningChain.rebuilt(row("a", retry={"a": "1h"}), records).stop(0).done is State.FAIL


async def test_a_suspended_chain_is_reported_with_all_ended_tries(bench_of: MakeBench) -> None:
    bench = bench_of(side_by_side("a", "b"))
    await bench.running("a", "b")
    bench.end("a")
    await bench.is_quiet()
    bench.traverser.suspend()
    reports = await bench.commit_to_the_end()
    states = {tried.entry.job_id: State(tried.entry.state) for report in reports for tried in report.tries}
    assert states == {"start": State.COMPLETE, "a": State.COMPLETE, "b": State.STOPPED}
    suspended = reports[-1].suspended
    assert suspended.request_id == "request"
    assert suspended.job_chain.jobs["a"].state == state_pb2.STATE_COMPLETE
    again = Bench(RunningChain.resume(suspended))
    again.start()
    await again.running("b")
    assert "a" not in again.runs
    again.end("b")
    assert (await again.commit_to_the_end())[-1].finish.state == state_pb2.STATE_COMPLETE


async def test_a_paused_chain_lets_jobs_end_and_starts_no_others(bench_of: MakeBench) -> None:
    bench = bench_of(side_by_side("a", "b", retry={"b": "1h"}))
    await bench.running("a", "b")
    bench.traverser.pause(stops_jobs=False)
    bench.traverser.pause(stops_jobs=False)
    assert bench.traverser.is_pausing
    bench.end("a")
    bench.end("b", State.FAIL)
    [*_, last] = await bench.commit_to_the_end()
    assert last.suspended.job_chain.jobs["a"].state == state_pb2.STATE_COMPLETE
    assert not last.suspended.stopped_jobs
    assert not bench.traverser.is_pausing


async def test_a_chain_that_is_paused_now_stops_its_jobs(bench_of: MakeBench) -> None:
    bench = bench_of(row("a", "b"))
    await bench.running("a")
    bench.traverser.pause(stops_jobs=False)
    bench.traverser.pause(stops_jobs=True)
    [*_, last] = await bench.commit_to_the_end()
    assert last.suspended.stopped_jobs == ["a"]


async def test_a_chain_that_is_no_longer_paused_goes_on(bench_of: MakeBench) -> None:
    bench = bench_of(row("a", "b"))
    await bench.running("a")
    bench.traverser.pause(stops_jobs=False)
    bench.traverser.unpause()
    bench.end("a")
    await bench.is_quiet()
    await bench.commit()
    await bench.running("b")
    bench.end("b")
    [*_, last] = await bench.commit_to_the_end()
    assert last.finish.state == state_pb2.STATE_COMPLETE


async def test_a_chain_that_is_told_of_its_stop_anew_does_nothing(
    bench_of: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it goes with each list of chains while `finally` jobs run, perhaps for half an hour."""
    stop = RunningChain.stop
    stops = []

    def counted(chain: RunningChain, now: int, *, skip_finally: bool) -> Actions:
        stops.append(skip_finally)
        return stop(chain, now, skip_finally=skip_finally)

    monkeypatch.setattr(RunningChain, "stop", counted)
    bench = bench_of(row("a"))
    await bench.running("a")
    with structlog.testing.capture_logs() as logs:
        for skip_finally in (False, False, True, True, False):
            bench.traverser.stop(skip_finally=skip_finally)
    assert [line["skip_finally"] for line in logs if line["event"] == "chain told to stop"] == [False, True]
    assert stops == [False, True]
    await bench.commit_to_the_end()


@pytest.mark.parametrize(
    "call",
    [
        lambda traverser: traverser.pause(stops_jobs=False),
        lambda traverser: traverser.pause(stops_jobs=True),
        lambda traverser: traverser.unpause(),
        lambda traverser: traverser.suspend(),
        lambda traverser: traverser.stop(),
    ],
    ids=["pause", "pause now", "resume", "suspend", "stop"],
)
async def test_a_chain_that_was_given_up_ends_once_whatever_it_is_told(
    bench_of: MakeBench, call: Callable[[Traverser], None]
) -> None:
    bench = bench_of(row("a"), suspect=Suspect(crashes=3, job_id="a"), is_claimed=False)
    call(bench.traverser)
    reports = await bench.commit_to_the_end()
    assert [report.finish.state for report in reports if report.WhichOneof("end")] == [state_pb2.STATE_FAIL]


async def test_tries_that_have_not_begun_when_a_chain_is_paused_never_begin(bench_of: MakeBench) -> None:
    bench = bench_of(side_by_side("a", "b"), is_claimed=False)
    bench.traverser.pause(stops_jobs=False)
    [*_, last] = await bench.commit_to_the_end()
    assert (bench.runs, list(last.suspended.total_job_tries)) == ({}, ["start"])


async def test_a_try_that_a_pause_kept_from_beginning_runs_if_the_pause_ends_before_it_is_committed(
    bench_of: MakeBench,
) -> None:
    bench = bench_of(row("a"))
    bench.may_make.clear()
    await bench.until(lambda: bench.making)
    bench.traverser.pause(stops_jobs=False)
    await bench.is_quiet()  # The try has ended as STOPPED, and nobody has committed that.
    bench.traverser.unpause()
    bench.may_make.set()
    await bench.commit()
    await bench.running("a")
    bench.end("a")
    [*_, last] = await bench.commit_to_the_end()
    assert last.finish.state == state_pb2.STATE_COMPLETE


async def test_a_chain_that_is_too_large_to_suspend_ends_without_a_report_of_its_end(
    bench_of: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_reports_module, "_LARGEST_SUSPENDED", 0)
    bench = bench_of(side_by_side("a", "b"))
    await bench.running("a", "b")
    bench.traverser.suspend()
    async with asyncio.timeout(STEP):
        reports = await bench.commit_to_the_end()
    assert {tried.entry.job_id for report in reports for tried in report.tries} == {"start", "a", "b"}
    assert [report.WhichOneof("end") for report in reports] == [None] * len(reports)
    assert not bench.outbox.take().entries


async def test_a_chain_of_another_runner_stops_and_reports_nothing_more(bench_of: MakeBench) -> None:
    bench = bench_of(side_by_side("a", "b"))
    await bench.running("a", "b")
    bench.end("a")
    await bench.is_quiet()
    batch = await bench.batch()
    bench.outbox.settle(batch, [RefusedReport(assignment=ASSIGNMENT, reason=REFUSAL_REASON_STALE)])
    await bench.until(bench.ended.is_set)
    assert not bench.running_names(), "b was not stopped"
    assert not bench.outbox.take().entries


async def test_a_chain_whose_report_cannot_be_stored_fails(bench_of: MakeBench) -> None:
    bench = bench_of(row("a", "b"))
    await bench.running("a")
    bench.end("a")
    await bench.is_quiet()
    batch = await bench.batch()
    bench.outbox.settle(batch, [RefusedReport(assignment=ASSIGNMENT, reason=REFUSAL_REASON_INVALID)])
    await bench.until(bench.ended.is_set)
    [report] = (await bench.batch()).message().chains
    assert report.finish.state == state_pb2.STATE_FAIL
    assert not report.tries
    assert "b" not in bench.runs


async def test_a_runner_without_a_lease_starts_no_more_jobs(bench_of: MakeBench) -> None:
    bench = bench_of(row("a", "b"))
    await bench.running("a")
    bench.may_start = False
    bench.end("a")
    await bench.is_quiet()
    await bench.commit()
    await bench.is_quiet()
    assert "b" not in bench.runs
    bench.traverser.suspend()
    reports = await bench.commit_to_the_end()
    assert reports[-1].suspended.job_chain.jobs["a"].state == state_pb2.STATE_COMPLETE
    assert reports[-1].suspended.job_chain.jobs["b"].state == state_pb2.STATE_PENDING
    assert list(reports[-1].suspended.stopped_jobs) == ["b"]
    assert not bench.jobs.get("b") or not bench.jobs["b"].seen


@pytest.mark.parametrize("limits", [{"max_tries": 2}, {"max_bytes": 1}])
async def test_a_full_outbox_starts_no_more_jobs_until_there_is_room(
    bench_of: MakeBench, limits: dict[str, int]
) -> None:
    names = [f"job{number}" for number in range(4)]
    bench = bench_of(row(*names), assignment=Assignment(request_id="request"), **limits)
    # A box of one byte is full with the report of the noop, one of two tries with that and the first job's.
    await bench.is_quiet()
    assert len(bench.runs) == limits.get("max_tries", 1) - 1
    for name in names:
        while name not in bench.runs:
            await bench.commit()
            await bench.is_quiet()
        bench.end(name)
        await bench.is_quiet()
    assert (await bench.commit_to_the_end())[-1].finish.state == state_pb2.STATE_COMPLETE
