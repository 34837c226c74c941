"""The keys of sequences on a runner: what it reports, and that no try begins before they are held."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.limit_pb2 import (
    WAIT_AFTER_STOP_ENDS,
    WAIT_AFTER_STOP_GOES_ON,
    SequenceLimitChange,
    SequenceLimitOutcome,
)
from spincycle_grpc.v1.runner_reports_pb2 import ChainReport
from spincycle_server.chain import RunningChain
from tests.chain import test_finals
from tests.job_runner.test_traverser import ASSIGNMENT, Bench


def a_chain(*, retry: int = 0) -> JobChain:
    """Returns start, {outer, {inner, work, last}, after}, end: two sequences with a key each."""
    chain = JobChain(request_id="request", state=state_pb2.STATE_PENDING)
    sequences = {"start": "", "outer": "start", "inner": "outer"}
    row = ("start", "outer", "inner", "work", "last", "after", "end")
    of = dict(zip(row, ("start", "outer", "inner", "inner", "inner", "outer", "start"), strict=True))
    for name in row:
        job = chain.jobs[name]
        job.id, job.sequence_id, job.parent_sequence_id = name, of[name], sequences[of[name]]
        job.name = job.type = "work" if name == "work" else "noop"
        job.state = state_pb2.STATE_PENDING
    for before, after in itertools.pairwise(row):
        chain.adjacency_list[before].ids.append(after)
    chain.jobs["outer"].sequence_limits.add(key="out", max=1)
    chain.jobs["inner"].sequence_limits.add(key="in", max=2)
    chain.jobs["inner"].sequence_retry = retry
    chain.path_labels.update({"start": "roll", "outer": "host web7", "inner": "step"})
    return chain


class LimitBench(Bench):
    """A bench that keeps all changes that are reported."""

    def __init__(self, chain: RunningChain) -> None:
        super().__init__(chain)
        self.changes: list[SequenceLimitChange] = []

    async def commit(self) -> list[ChainReport]:
        reports = await super().commit()
        self.changes += [change for report in reports for change in report.limit_changes]
        return reports

    async def asked(self, sequence_id: str) -> SequenceLimitChange:
        """Commits reports until a sequence has asked for its keys. Returns its newest question."""
        while not any(one.sequence_id == sequence_id and one.limits for one in self.changes):
            await self.commit()
        found = [one for one in self.changes if one.sequence_id == sequence_id and one.limits]
        self.changes = [one for one in self.changes if one not in found]
        return found[-1]

    def answer(self, change: SequenceLimitChange, reason: str = "", error: str = "") -> None:
        self.traverser.end_limit_wait(
            SequenceLimitOutcome(
                request_id="request",
                epoch=ASSIGNMENT.epoch,
                sequence_id=change.sequence_id,
                number=change.number,
                reason=reason,
                error=error,
            )
        )


MakeBench = Callable[..., LimitBench]


@pytest.fixture
async def bench_of() -> AsyncIterator[MakeBench]:
    benches: list[LimitBench] = []

    def make(**options: Any) -> LimitBench:
        bench = LimitBench(RunningChain.new(a_chain(**options)))
        benches.append(bench)
        bench.start()
        return bench

    yield make
    for bench in benches:
        bench.traverser.drop("the test is over")
        await bench.until(bench.ended.is_set)


async def test_a_sequence_asks_for_its_keys_and_runs_when_it_holds_them(bench_of: MakeBench) -> None:
    bench = bench_of()
    outer = await bench.asked("outer")
    assert [(one.number, one.begins, list(one.kept)) for one in bench.changes] == [(1, True, [])]
    assert (outer.number, [limit.key for limit in outer.limits], list(outer.path)) == (
        2,
        ["out"],
        ["roll", "host web7"],
    )
    await bench.is_quiet()
    assert not bench.outbox.take().entries
    assert [(list(one.path), one.status) for one in await bench.traverser.status()] == [
        (["roll", "host web7"], "(waits for limits: out) ")
    ]
    assert [(one.sequence_id, one.number) for one in bench.traverser.limit_waits] == [("outer", 2)]
    bench.answer(outer)
    inner = await bench.asked("inner")
    assert (inner.number, list(inner.around), inner.limits[0].max) == (3, ["outer"], 2)
    bench.answer(SequenceLimitChange(sequence_id="inner", number=2))  # An old answer.
    await bench.is_quiet()
    assert not bench.runs
    bench.answer(inner)
    bench.answer(inner)
    await bench.running("work")
    assert bench.traverser.limit_waits == []
    bench.end("work")
    reports = await bench.commit_to_the_end()
    released = [one.sequence_id for report in reports for one in report.limit_changes]
    assert released == ["inner", "outer"]
    assert reports[-1].finish.state == state_pb2.STATE_COMPLETE


async def test_a_refused_sequence_fails_and_a_retry_of_it_asks_again(bench_of: MakeBench) -> None:
    bench = bench_of(retry=1)
    bench.answer(await bench.asked("outer"))
    first = await bench.asked("inner")
    bench.answer(first, "LIMIT_REACHED", "the limit in is reached")
    second = await bench.asked("inner")
    assert second.number > first.number
    bench.answer(second, "LIMIT_REACHED", "the limit in is reached")
    reports = await bench.commit_to_the_end()
    assert reports[-1].finish.state == state_pb2.STATE_FAIL
    tries = [tried for report in reports for tried in report.tries if tried.entry.job_id == "inner"]
    assert [(one.entry.error, one.is_last) for one in tries] == [("the limit in is reached", True)]
    assert [list(one.entry.path) for one in tries] == [["roll", "host web7", "step"]]
    assert not bench.runs


@pytest.mark.parametrize("how", ["stop", "suspend", "pause"])
async def test_a_wait_ends_with_a_stop_and_is_taken_back_by_a_pause(bench_of: MakeBench, how: str) -> None:
    bench = bench_of()
    bench.answer(await bench.asked("outer"))
    inner = await bench.asked("inner")
    if how == "stop":
        bench.traverser.stop()
    elif how == "suspend":
        bench.traverser.suspend()
    else:
        bench.traverser.pause(stops_jobs=False)
    bench.answer(inner)  # Too late.
    (last,) = (await bench.commit_to_the_end())[-1:]
    assert not bench.runs
    if how == "stop":
        assert last.finish.state == state_pb2.STATE_STOPPED
    else:
        assert last.HasField("suspended")
        assert not last.limit_changes, "it keeps its keys and its place"
        assert "inner" not in last.suspended.total_job_tries


async def test_a_chain_that_goes_on_asks_for_what_its_sequences_need(bench_of: MakeBench) -> None:
    bench = bench_of()
    bench.answer(await bench.asked("outer"))
    bench.answer(await bench.asked("inner"))
    await bench.running("work")
    bench.traverser.suspend()
    suspended = (await bench.commit_to_the_end())[-1].suspended
    other = LimitBench(RunningChain.resume(suspended))
    other.start()
    outer = await other.asked("outer")
    (begins,) = (
        other.changes
    )  # The inner sequence keeps what it has, and asks when the outer one holds its keys.
    assert (begins.begins, set(begins.kept)) == (True, {"outer", "inner"})
    await other.is_quiet()
    other.answer(outer)
    inner = await other.asked("inner")
    await other.is_quiet()
    assert not other.runs
    other.answer(inner)
    await other.running("work")
    other.traverser.drop("the test is over")
    await other.until(other.ended.is_set)


def a_chain_with_a_branch() -> JobChain:
    """Returns start, {outer, {inner, last} beside work, after}, end. The outer sequence is tried again."""
    chain = JobChain(request_id="request", state=state_pb2.STATE_PENDING)
    of = {"start": "start", "outer": "outer", "inner": "inner", "last": "inner", "work": "outer"}
    for name, sequence in {**of, "after": "outer", "end": "start"}.items():
        job = chain.jobs[name]
        job.id, job.sequence_id, job.state = name, sequence, state_pb2.STATE_PENDING
        job.parent_sequence_id = {"start": "", "outer": "start", "inner": "outer"}[sequence]
        job.name = job.type = "work" if name == "work" else "noop"
    edges = [("start", "outer"), ("outer", "inner"), ("inner", "last"), ("last", "after")]
    for before, after in [*edges, ("outer", "work"), ("work", "after"), ("after", "end")]:
        chain.adjacency_list[before].ids.append(after)
    chain.jobs["outer"].sequence_retry = 1
    chain.jobs["inner"].sequence_limits.add(key="in", max=1)
    return chain


async def test_a_sequence_that_is_tried_again_does_not_wait_for_keys_first() -> None:
    bench = LimitBench(RunningChain.new(a_chain_with_a_branch()))
    bench.start()
    first = await bench.asked("inner")
    await bench.running("work")
    bench.end("work", State.FAIL)
    second = await bench.asked("inner")
    assert [one.sequence_id for one in bench.changes if not one.limits and not one.begins] == ["inner"]
    assert second.number > first.number + 1
    bench.answer(second)
    await bench.running("work")
    bench.end("work")
    reports = await bench.commit_to_the_end()
    assert reports[-1].finish.state == state_pb2.STATE_COMPLETE


async def test_a_runner_says_which_waits_outlast_a_stop() -> None:
    chain = test_finals.a_chain()
    chain.jobs[test_finals.AROUND].sequence_limits.add(key="around", max=1)
    chain.jobs[test_finals.FINAL].sequence_limits.add(key="final", max=1)
    for job_id, job in chain.jobs.items():
        job.type = "work" if job_id == test_finals.WORK else "noop"
    bench = LimitBench(RunningChain.new(chain))
    bench.start()
    around = await bench.asked(test_finals.AROUND)
    assert around.after_stop == WAIT_AFTER_STOP_ENDS
    bench.answer(around)
    await bench.commit()
    await bench.running(test_finals.WORK)
    bench.traverser.stop()
    final = await bench.asked(test_finals.FINAL)
    assert final.after_stop == WAIT_AFTER_STOP_GOES_ON
    await bench.is_quiet()
    assert not bench.ended.is_set()
    bench.traverser.stop(skip_finally=True)
    reports = await bench.commit_to_the_end()
    assert reports[-1].finish.state == state_pb2.STATE_STOPPED


async def test_the_reports_of_a_chain_without_keys_have_no_changes() -> None:
    chain = a_chain()
    for job in chain.jobs.values():
        job.ClearField("sequence_limits")
    bench = LimitBench(RunningChain.new(chain))
    bench.start()
    await bench.running("work")
    bench.end("work")
    reports = await bench.commit_to_the_end()
    assert not any(report.limit_changes for report in reports)
