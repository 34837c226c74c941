"""The reports of one chain: ordinals, the number of finished jobs, and ends."""

from __future__ import annotations

import asyncio
import time

import pytest

from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, ChainReport, TryReport
from spincycle_server.chain import Run, RunningChain
from spincycle_server.job_runner import chain_reports as chain_reports_module
from spincycle_server.job_runner.chain_reports import ChainReports
from spincycle_server.job_runner.outbox import Outbox
from spincycle_server.job_runner.try_result import TryResult
from tests.store.samples import a_chain, a_log_entry, a_suspended_chain

ASSIGNMENT = Assignment(request_id="request", epoch=3)


def result(job_id: str = "bbbb", state: State = State.COMPLETE) -> TryResult:
    return TryResult(TryReport(entry=a_log_entry("request", job_id, state=state.value)))


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
async def reports(outbox: Outbox) -> ChainReports:
    chain = RunningChain.new(a_chain("request"))
    return ChainReports(outbox, ASSIGNMENT, chain, asyncio.get_running_loop())


def sent(outbox: Outbox) -> ChainReport:
    """Takes the only report of the outbox."""
    (report,) = outbox.take().message().chains
    assert report.assignment == ASSIGNMENT
    return report


async def test_tries_are_numbered_from_1(outbox: Outbox, reports: ChainReports) -> None:
    reports.add_try(Run("bbbb", 1, 1), result(state=State.FAIL), None)
    reports.add_try(Run("bbbb", 2, 1), result(), None)
    assert [one.ordinal for one in sent(outbox).tries] == [1, 2]
    reports.add_try(Run("cccc", 1, 1), result(), None)
    assert [one.ordinal for one in sent(outbox).tries] == [3]


async def test_a_complete_try_counts_as_finished_before_the_chain_takes_it_in(
    outbox: Outbox, reports: ChainReports
) -> None:
    added = [
        reports.add_try(Run("bbbb", 1, 1), result(), None),
        reports.add_try(Run("cccc", 1, 1), result(state=State.FAIL), None),
        reports.add_try(Run("aaaa", 1, 1), result("aaaa"), None),  # a noop
    ]
    assert added == [(1, 1), (0, 0), (1, 0)]
    report = sent(outbox)
    assert (report.finished_jobs, report.finished_tasks) == (2, 1)
    for one in added:  # The chain of this test does not count the jobs itself.
        reports.taken_in(one)
    reports.add_try(Run("cccc", 2, 1), result(state=State.FAIL), None)
    report = sent(outbox)
    assert (report.finished_jobs, report.finished_tasks) == (0, 0)


async def test_the_end_has_the_state_and_the_time(outbox: Outbox, reports: ChainReports) -> None:
    before = time.time_ns()
    committed = reports.finish(State.STOPPED)
    batch = outbox.take()
    (report,) = batch.message().chains
    assert report.finish.state == state_pb2.STATE_STOPPED
    assert before <= report.finish.finished_at.ToNanoseconds() <= time.time_ns()
    assert not committed.done()
    outbox.settle(batch, [])
    assert committed.done()


async def test_a_suspended_chain_is_reported_only_if_it_fits_in_a_message(
    outbox: Outbox, reports: ChainReports, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspended = a_suspended_chain("request")
    monkeypatch.setattr(chain_reports_module, "_LARGEST_SUSPENDED", suspended.ByteSize() - 1)
    assert reports.suspend(suspended) is None
    assert not outbox.take().entries
    monkeypatch.setattr(chain_reports_module, "_LARGEST_SUSPENDED", suspended.ByteSize())
    assert reports.suspend(suspended) is not None
    assert sent(outbox).suspended == suspended
