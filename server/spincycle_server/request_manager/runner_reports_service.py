"""The servicer of RunnerReports: stores what Job Runners report."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import FINAL_STATES, State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.runner_reports_pb2 import (
    FinishRequest,
    FinishResponse,
    ProgressRequest,
    ProgressResponse,
    RecordLogRequest,
    RecordLogResponse,
    ReportRequest,
    ReportResponse,
    SuspendRequest,
    SuspendResponse,
)
from spincycle_server.request_manager.report_streams import ReportStreams
from spincycle_server.request_manager.runner_stream import RunnerStream
from spincycle_server.store.schema import JOB_ID, MAX_TRY, MAX_TYPE
from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import Counters

if TYPE_CHECKING:
    from spincycle_server.request_manager.dispatcher import Dispatcher
    from spincycle_server.request_manager.request_pauser import RequestPauser
    from spincycle_server.request_manager.request_stopper import RequestStopper
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.rpc import CallContext
    from spincycle_server.store import Store
    from spincycle_server.telemetry.spans_of_requests import RequestSpans

logger = structlog.get_logger(__name__)

# The columns of all three databases hold these values.
_LARGEST_COUNT = 2**31 - 1
_LATEST_TIME = 2**31 - 1
"""Seconds since 1970."""


class RunnerReportsService:
    """Implements the service RunnerReports.

    Job Runners of this project call only Report. The other methods serve runners that speak the JSON API of
    the original.

    Args:
        store: Stores leases and reports.
        runners: The live runners.
        dispatcher: Takes over the chains that a runner should have and does not have.
        stopper: Tells a runner again to stop chains that must stop.
        pauser: Tells a runner again which chains are paused.
        lease: Seconds that a renewed lease lasts.
        spans: Records spans of requests; None to record none.

    Attributes:
        renewals: Counts the messages of runners that renewed their leases.
    """

    def __init__(
        self,
        store: Store,
        runners: Runners,
        dispatcher: Dispatcher,
        stopper: RequestStopper,
        pauser: RequestPauser,
        *,
        lease: float,
        spans: RequestSpans | None = None,
    ) -> None:
        self._store = store
        self._runners = runners
        self._dispatcher = dispatcher
        self._stopper = stopper
        self._pauser = pauser
        self._lease = lease
        self._spans = spans
        self._streams = ReportStreams()
        runners.reports_here = self._streams.has
        self.renewals = Counters(catalogue.LEASE_RENEWALS)
        self._renewed = self.renewals.of()
        self.limits = self._streams.limits

    def end_streams(self) -> None:
        """Ends all streams, because the server shuts down. Received messages are stored first."""
        self._streams.end()

    async def Report(  # noqa: N802 (the contract's name, as below)
        self, requests: AsyncIterator[ReportRequest], context: CallContext
    ) -> AsyncIterator[ReportResponse]:
        """Stores the reports of one runner for as long as its stream lasts."""
        stream = RunnerStream(
            self._store,
            self._runners,
            self._dispatcher,
            self._stopper,
            self._pauser,
            lease=self._lease,
            spans=self._spans,
        )
        try:
            async for message in self._streams.messages(requests):
                answer = await stream.receive(message)
                self._renewed.value += 1
                if message.HasField("runner"):
                    logger.info("report stream opened", runner_id=stream.runner_id, peer=context.peer)
                yield answer
                stream.acknowledged()
        finally:
            if stream.runner_id:
                logger.info("report stream ended", runner_id=stream.runner_id, peer=context.peer)

    async def Finish(self, request: FinishRequest, context: CallContext) -> FinishResponse:  # noqa: N802
        """Sets the final state of a RUNNING request."""
        if request.state not in FINAL_STATES:
            raise InvalidArgumentError(
                f"state {request.state} is not a final state: must be COMPLETE (3), FAIL (4) or STOPPED (6)",
                reason="BAD_STATE",
                request_id=request.request_id,
            )
        if not request.HasField("finished_at"):
            request.finished_at.GetCurrentTime()
        if not 0 < request.finished_at.seconds <= _LATEST_TIME:
            raise _invalid("finishedAt must be between 1970 and 2037", request.request_id)
        _check_count(request.finished_jobs, request.request_id)
        finished_at = request.finished_at.ToMicroseconds()
        await self._store.finish(request.request_id, State(request.state), finished_at, request.finished_jobs)
        return FinishResponse()

    async def Suspend(self, request: SuspendRequest, context: CallContext) -> SuspendResponse:  # noqa: N802
        """Stores a suspended chain and sets its RUNNING request SUSPENDED."""
        suspended = request.suspended_job_chain
        if suspended.request_id != request.request_id:
            raise InvalidArgumentError(
                f"invalid proto.SuspendedJobChain: RequestId={suspended.request_id} does not match "
                f"request ID in URL: {request.request_id}",
                reason="WRONG_REQUEST",
                request_id=request.request_id,
            )
        _check_count(suspended.job_chain.finished_jobs, request.request_id)
        await self._store.suspend(request.request_id, suspended)
        self._dispatcher.wake()
        return SuspendResponse()

    async def Progress(self, request: ProgressRequest, context: CallContext) -> ProgressResponse:  # noqa: N802
        """Sets the number of finished jobs of a request."""
        progress = request.progress
        if not progress.request_id:
            raise InvalidArgumentError(
                "invalid proto.StatusProgress: RequestId is empty, must be set",
                reason="WRONG_REQUEST",
                request_id=request.request_id,
            )
        if progress.request_id != request.request_id:
            raise InvalidArgumentError(
                f"invalid proto.StatusProgress: RequestId={progress.request_id} does not match "
                f"request ID in URL: {request.request_id}",
                reason="WRONG_REQUEST",
                request_id=request.request_id,
            )
        _check_count(progress.finished_jobs, request.request_id)
        await self._store.set_progress(request.request_id, progress.finished_jobs)
        return ProgressResponse()

    async def RecordLog(self, request: RecordLogRequest, context: CallContext) -> RecordLogResponse:  # noqa: N802
        """Records a finished try. Returns the stored entry: the first that was recorded for the try."""
        entry = request.entry
        entry.request_id = request.request_id
        _check_entry(entry)
        return RecordLogResponse(entry=await self._store.record_log(entry))


def _check_count(finished_jobs: int, request_id: str) -> None:
    if finished_jobs > _LARGEST_COUNT:
        raise _invalid(f"finishedJobs must be at most {_LARGEST_COUNT}", request_id)


def _check_entry(entry: JobLog) -> None:
    """Raises InvalidArgumentError if the database cannot store a log entry."""
    if not JOB_ID.fullmatch(entry.job_id):
        raise _invalid("jobId must be four characters of 0-9A-Za-z", entry.request_id)
    if not 0 < getattr(entry, "try") <= MAX_TRY:
        raise _invalid(f"try must be from 1 to {MAX_TRY}", entry.request_id)
    if entry.state not in state_pb2.State.values():
        raise _invalid("state must be the number of a State", entry.request_id)
    if len(entry.type.encode()) > MAX_TYPE or "\0" in entry.type:
        raise _invalid(f"type must have at most {MAX_TYPE} bytes and no zero byte", entry.request_id)


def _invalid(message: str, request_id: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"the report cannot be stored: {message}", reason="BAD_REPORT", request_id=request_id
    )
