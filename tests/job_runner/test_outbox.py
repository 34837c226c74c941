"""The outbox: order, limits, and results for waiters."""

from __future__ import annotations

import asyncio
import gc

import pytest

from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
from spincycle_grpc.v1.limit_pb2 import SequenceLimitChange
from spincycle_grpc.v1.runner_reports_pb2 import (
    REFUSAL_REASON_STALE,
    Assignment,
    ChainFinish,
    RefusedReport,
    TryReport,
)
from spincycle_server.job_runner import outbox as outbox_module
from spincycle_server.job_runner.outbox import Batch, Outbox, ReportRefusedError
from spincycle_server.telemetry.limits import WAITING_REPORTS, WAITING_TRIES, LimitUse
from tests.limits import STEP

FIRST = Assignment(request_id="first", epoch=1)
SECOND = Assignment(request_id="second", epoch=4)


def tried(number: int, stdout: str = "") -> TryReport:
    report = TryReport(entry=JobLog(job_id="job1", stdout=stdout))
    setattr(report.entry, "try", number)
    return report


def tries_of(report: object) -> list[int]:
    return [getattr(one.entry, "try") for one in report.tries]  # type: ignore[attr-defined] # a ChainReport


async def test_a_batch_has_one_report_per_chain_in_order() -> None:
    outbox = Outbox()
    outbox.add_try(FIRST, tried(1), (1, 0))
    outbox.add_try(SECOND, tried(1), (1, 0))
    outbox.add_try(FIRST, tried(2), (2, 1))
    first, second = outbox.take().message().chains
    assert first.assignment == FIRST
    assert tries_of(first) == [1, 2]
    assert (first.finished_jobs, first.finished_tasks) == (2, 1)
    assert second.assignment == SECOND
    assert not outbox.take().entries


async def test_a_batch_that_is_put_back_comes_before_newer_reports() -> None:
    outbox = Outbox()
    outbox.add_try(FIRST, tried(1), (1, 0))
    batch = outbox.take()
    outbox.add_try(FIRST, tried(2), (2, 0))
    done = asyncio.get_running_loop().create_future()
    outbox.add_end(FIRST, ChainFinish(state=state_pb2.STATE_COMPLETE), (2, 1), done)
    outbox.put_back(batch)
    (report,) = outbox.take().message().chains
    assert tries_of(report) == [1, 2]
    assert report.finish.state == 3


async def test_settling_a_batch_gives_its_waiters_their_results() -> None:
    outbox = Outbox()
    loop = asyncio.get_running_loop()
    stored, refused = loop.create_future(), loop.create_future()
    outbox.add_try(FIRST, tried(1), (1, 0), stored)
    outbox.add_try(SECOND, tried(1), (1, 0), refused)
    batch = outbox.take()
    assert not stored.done()
    outbox.settle(batch, [RefusedReport(assignment=SECOND, reason=REFUSAL_REASON_STALE)])
    assert stored.result() is None
    with pytest.raises(ReportRefusedError) as raised:
        refused.result()
    assert raised.value.reason == REFUSAL_REASON_STALE


async def test_a_refusal_that_nobody_awaits_is_not_logged() -> None:
    """A chain whose first report is refused is dropped, with all of its other reports."""
    loop = asyncio.get_running_loop()
    complaints: list[object] = []
    loop.set_exception_handler(lambda _, complaint: complaints.append(complaint))
    outbox = Outbox()
    outbox.add_try(FIRST, tried(1), (1, 0), loop.create_future())
    outbox.add_end(FIRST, ChainFinish(state=state_pb2.STATE_FAIL), (1, 0), loop.create_future())
    outbox.settle(outbox.take(), [RefusedReport(assignment=FIRST, reason=REFUSAL_REASON_STALE)])
    gc.collect()
    assert not complaints


async def test_a_large_chain_is_split_and_its_end_goes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAX_BATCH_TRIES", 3)
    outbox = Outbox()
    for number in range(1, 6):
        outbox.add_try(FIRST, tried(number), (number, 0))
    outbox.add_end(
        FIRST,
        ChainFinish(state=state_pb2.STATE_FAIL),
        (5, 0),
        asyncio.get_running_loop().create_future(),
    )
    outbox.add_try(SECOND, tried(1), (1, 0))
    (first,) = outbox.take().message().chains
    assert tries_of(first) == [1, 2, 3]
    assert not first.HasField("finish")
    rest, second = outbox.take().message().chains
    assert tries_of(rest) == [4, 5]
    assert rest.finish.state == 4
    assert second.assignment == SECOND


async def test_large_output_also_splits_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAX_BATCH_BYTES", 1000)
    outbox = Outbox()
    outbox.add_try(FIRST, tried(1, "x" * 5000), (1, 0))
    outbox.add_try(FIRST, tried(2), (2, 0))
    assert [tries_of(report) for report in outbox.take().message().chains] == [[1]]
    assert [tries_of(report) for report in outbox.take().message().chains] == [[2]]


async def test_suspended_chains_share_a_message_only_if_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain suspends all chains of a runner at once. Together they may be larger than any message."""
    monkeypatch.setattr(outbox_module, "MAX_BATCH_BYTES", 2500)
    loop = asyncio.get_running_loop()
    outbox = Outbox()
    sizes = {"a": 1000, "b": 1000, "c": 1000, "d": 9000, "e": 10}
    ended = {name: loop.create_future() for name in sizes}
    for name, size in sizes.items():
        assignment = Assignment(request_id=name, epoch=1)
        outbox.add_try(assignment, tried(1), (1, 0))
        suspended = SuspendedJobChain(job_chain=JobChain(timeout="x" * size))
        outbox.add_end(assignment, suspended, (1, 0), ended[name])
    messages: list[list[tuple[str, int, bool]]] = []
    while batch := outbox.take().entries:
        messages.append(
            [(entry.assignment.request_id, len(entry.tries), entry.end is not None) for entry in batch]
        )
        outbox.settle(Batch(batch), [])
    assert messages == [
        [("a", 1, True), ("b", 1, True), ("c", 1, False)],
        [("c", 0, True), ("d", 1, False)],
        [("d", 0, True)],
        [("e", 1, True)],
    ]
    assert all(future.done() for future in ended.values())


async def test_text_counts_with_the_most_bytes_that_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAX_BATCH_BYTES", 3000)
    outbox = Outbox()
    for number in (1, 2):
        outbox.add_try(FIRST, tried(number, "€" * 1000), (number, 0))
    assert [tries_of(report) for report in outbox.take().message().chains] == [[1]]


async def test_a_full_outbox_has_room_after_a_batch_is_taken() -> None:
    outbox = Outbox(max_tries=2)
    outbox.add_try(FIRST, tried(1), (1, 0))
    assert not outbox.full
    outbox.add_try(FIRST, tried(2), (2, 0))
    assert outbox.full
    room = asyncio.ensure_future(outbox.wait_room())
    await asyncio.sleep(0)
    assert not room.done()
    batch = outbox.take()
    await asyncio.wait_for(room, STEP)
    outbox.put_back(batch)
    assert outbox.full
    room = asyncio.ensure_future(outbox.wait_room())
    await asyncio.sleep(0)
    assert not room.done()
    room.cancel()


async def test_a_claim_after_tries_keeps_the_progress_that_they_report() -> None:
    outbox = Outbox()
    outbox.add_try(FIRST, tried(1), (1, 0))  # The chain takes it in when it is committed.
    outbox.add_claim(FIRST, (0, 0), asyncio.get_running_loop().create_future())
    (report,) = outbox.take().message().chains
    assert (report.finished_jobs, tries_of(report)) == (1, [1])


async def test_a_batch_that_is_put_back_counts_once_beside_newer_tries() -> None:
    outbox = Outbox(max_tries=3)
    outbox.add_try(FIRST, tried(1), (1, 0))
    batch = outbox.take()
    outbox.add_try(FIRST, tried(2), (2, 0))
    outbox.put_back(batch)
    assert not outbox.full
    assert outbox.limits() == (
        LimitUse(WAITING_TRIES, 3, 2),
        LimitUse(WAITING_REPORTS, 256 * 1024 * 1024, 400),
    )
    outbox.settle(outbox.take(), [])
    assert [use.used for use in outbox.limits()] == [0, 0]


async def test_an_empty_outbox_has_nothing_queued_and_nothing_in_flight() -> None:
    outbox = Outbox()
    outbox.add_try(FIRST, tried(1), (1, 0))
    empty = asyncio.ensure_future(outbox.wait_empty())
    batch = outbox.take()
    await asyncio.sleep(0)
    assert not empty.done()
    outbox.settle(batch, [])
    await asyncio.wait_for(empty, STEP)


async def test_forgetting_a_chain_leaves_the_others() -> None:
    outbox = Outbox()
    outbox.add_try(FIRST, tried(1), (1, 0))
    outbox.add_try(SECOND, tried(1), (1, 0))
    outbox.forget(FIRST)
    assert [report.assignment for report in outbox.take().message().chains] == [SECOND]


async def test_a_nudge_ends_the_wait_for_reports() -> None:
    outbox = Outbox()
    outbox.nudge()
    await asyncio.wait_for(outbox.wait_filled(), STEP)
    assert not outbox.take().entries
    waiting = asyncio.ensure_future(outbox.wait_filled())
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_changes_of_limits_come_in_order_after_all_tries_and_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_LIMIT_CHANGES", 2)
    monkeypatch.setattr(outbox_module, "MAX_BATCH_TRIES", 2)
    outbox = Outbox()
    loop = asyncio.get_running_loop()
    waiters = [loop.create_future() for _ in range(5)]
    for number in range(1, 6):
        change = SequenceLimitChange(number=number, sequence_id="aaaa")
        outbox.add_limit_change(FIRST, change, (0, 0), waiters[number - 1])
    for number in range(1, 4):
        outbox.add_try(FIRST, tried(number), (number, 0))
    ended = loop.create_future()
    outbox.add_end(FIRST, ChainFinish(state=state_pb2.STATE_COMPLETE), (3, 0), ended)
    outbox.put_back(outbox.take())
    sent: list[tuple[list[int], list[int], bool]] = []
    while (batch := outbox.take()).entries:
        (report,) = batch.message().chains
        numbers = [change.number for change in report.limit_changes]
        sent.append((tries_of(report), numbers, report.HasField("finish")))
        outbox.settle(batch, [])
    assert sent == [([1, 2], [], False), ([3], [1, 2], False), ([], [3, 4], False), ([], [5], True)]
    assert all(waiter.done() for waiter in [*waiters, ended])
