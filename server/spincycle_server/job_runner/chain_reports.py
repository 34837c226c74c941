"""The reports of one chain: numbers its tries, counts its finished jobs, and describes its end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from spincycle_grpc.channels import MAX_MESSAGE_BYTES
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.runner_reports_pb2 import ChainFinish, StartedTry

if TYPE_CHECKING:
    from spincycle_grpc.state import State
    from spincycle_grpc.v1.approval_pb2 import OpenedApproval
    from spincycle_grpc.v1.job_pb2 import SuspendedJobChain
    from spincycle_grpc.v1.limit_pb2 import SequenceLimitChange
    from spincycle_grpc.v1.runner_reports_pb2 import Assignment
    from spincycle_server.chain import Run, RunningChain
    from spincycle_server.job_runner.outbox import ChainEnd, Finished, Outbox
    from spincycle_server.job_runner.try_result import TryResult

_NOTHING, _CONNECTION, _TASK = (0, 0), (1, 0), (1, 1)
"""What a try adds to the progress of its chain: nothing if its job is not COMPLETE after it. Otherwise it
adds one COMPLETE job, and one COMPLETE task if the job is a task."""

_LARGEST_SUSPENDED = MAX_MESSAGE_BYTES * 3 // 4
"""The maximum size of a suspended chain in bytes, so that it fits in a message with other reports."""


class ChainReports:
    """The reports of one chain.

    Args:
        outbox: The queue of reports.
        assignment: The assignment of the chain's request to this runner.
        chain: The chain. Its `finished_jobs` does not include tries that it has not taken in.
        loop: The event loop.
    """

    def __init__(
        self, outbox: Outbox, assignment: Assignment, chain: RunningChain, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._outbox = outbox
        self._assignment = assignment
        self._chain = chain
        self._progress = chain.progress
        self._loop = loop
        self._tries = 0
        # COMPLETE tries that are reported, but that the chain has not taken in; those of tasks among them.
        self._complete = self._complete_tasks = 0

    def claim(self) -> asyncio.Future[None]:
        """Asks whether the assignment is still valid. The result is done when that is confirmed."""
        confirmed: asyncio.Future[None] = self._loop.create_future()
        self._outbox.add_claim(self._assignment, self._taken_in(), confirmed)
        return confirmed

    def started(self, run: Run, *, is_shared: bool) -> asyncio.Future[None]:
        """Reports that a try of a suspect is about to start. The result is done when that is committed."""
        recorded: asyncio.Future[None] = self._loop.create_future()
        started = StartedTry(job_id=run.job_id, shared=is_shared, **{"try": run.number})
        self._outbox.add_started(self._assignment, started, self._taken_in(), recorded)
        return recorded

    def opened(self, opened: OpenedApproval) -> asyncio.Future[None]:
        """Reports that a job waits for an approval. The result is done when that is committed."""
        recorded: asyncio.Future[None] = self._loop.create_future()
        self._outbox.add_opened(self._assignment, opened, self._taken_in(), recorded)
        return recorded

    def limits_changed(self, change: SequenceLimitChange) -> asyncio.Future[None]:
        """Reports what a sequence does with its keys. The result is done when that is committed."""
        recorded: asyncio.Future[None] = self._loop.create_future()
        self._outbox.add_limit_change(self._assignment, change, self._taken_in(), recorded)
        return recorded

    def clear(self) -> None:
        """Reports that the chain is no longer a suspect."""
        self._outbox.add_cleared(self._assignment, self._finished())

    def add_try(
        self,
        run: Run,
        result: TryResult,
        committed: asyncio.Future[None] | None,
        *,
        is_approval: bool = False,
        must_fail: bool = False,
    ) -> Finished:
        """Reports a finished try.

        Args:
            run: The try.
            result: How it ended.
            committed: Done when the report is committed; None if nobody waits for that.
            is_approval: Whether it was a wait for an approval.
            must_fail: Whether the request must FAIL because of it, after its `finally` parts.

        Returns:
            What the try adds to the chain's progress, for `taken_in`.
        """
        self._tries += 1
        added = _NOTHING
        if result.entry.state == state_pb2.STATE_COMPLETE:
            added = _TASK if self._chain.is_task(run.job_id) else _CONNECTION
            self._complete += 1
            self._complete_tasks += added[1]
        report = result.report
        report.sequence_try = run.sequence_try
        report.ordinal = self._tries
        if result.data is not None:
            report.job_data.CopyFrom(result.data)
        if result.is_last:
            report.is_last = True
        if is_approval:
            report.is_approval = True
        if must_fail:
            report.must_fail = True
        self._outbox.add_try(self._assignment, report, self._finished(), committed)
        return added

    def taken_in(self, added: Finished) -> None:
        """Notes that the chain takes in a reported try, and counts what that adds itself from now on."""
        self._complete -= added[0]
        self._complete_tasks -= added[1]

    def finish(self, state: State) -> asyncio.Future[None]:
        """Reports that the chain has ended now. The result is done when all its reports are committed."""
        end = ChainFinish(state=state.value)
        end.finished_at.seconds, end.finished_at.nanos = divmod(time.time_ns(), 1_000_000_000)
        return self._end(end)

    def suspend(self, suspended: SuspendedJobChain) -> asyncio.Future[None] | None:
        """Reports a suspended chain. Returns None, and reports nothing, if it is too large for a message."""
        return self._end(suspended) if suspended.ByteSize() <= _LARGEST_SUSPENDED else None

    def forget(self) -> None:
        """Drops the queued reports. Their futures are never done."""
        self._outbox.forget(self._assignment)

    def _taken_in(self) -> Finished:
        return self._progress.finished, self._progress.finished_tasks

    def _finished(self) -> Finished:
        progress = self._progress
        return progress.finished + self._complete, progress.finished_tasks + self._complete_tasks

    def _end(self, end: ChainEnd) -> asyncio.Future[None]:
        committed: asyncio.Future[None] = self._loop.create_future()
        self._outbox.add_end(self._assignment, end, self._taken_in(), committed)
        return committed
