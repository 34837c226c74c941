"""The servicer of RunnerReports: keeps what Job Runners report."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING

import structlog
from google.protobuf.duration_pb2 import Duration

from spincycle_grpc.errors import InternalError, InvalidArgumentError
from spincycle_grpc.state import FINAL_STATES, State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.runner_reports_pb2 import (
    REFUSAL_REASON_INVALID,
    Assignment,
    ChainReport,
    FinishRequest,
    FinishResponse,
    ProgressRequest,
    ProgressResponse,
    RecordLogRequest,
    RecordLogResponse,
    RefusedReport,
    ReportRequest,
    ReportResponse,
    RunnerInfo,
    SuspendRequest,
    SuspendResponse,
)
from spincycle_server.request_manager.recovery import MissingChains
from spincycle_server.store.leases import Renewal
from spincycle_server.store.schema import MAX_TRY

if TYPE_CHECKING:
    from spincycle_server.request_manager.dispatcher import Dispatcher
    from spincycle_server.request_manager.request_stopper import RequestStopper
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.rpc import CallContext
    from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

_JOB_ID = re.compile("[0-9A-Za-z]{4}")
_LARGEST_COUNT = 2**31 - 1
_LONGEST_TYPE = 75
_LATEST_TIME = 2**31 - 1
"""What the columns of all databases hold: a count, bytes of a type, seconds since 1970."""


class RunnerReportsService:
    """What the contract of RunnerReports says, method by method.

    Args:
        store: Keeps the reports.
        runners: Learns of runners that come and go.
        dispatcher: Is woken when a runner comes.
        stopper: Tells a runner again what it has that is to stop.
        lease: Seconds that a runner lives after its last message.
    """

    def __init__(
        self, store: Store, runners: Runners, dispatcher: Dispatcher, stopper: RequestStopper, *, lease: float
    ) -> None:
        self._store = store
        self._runners = runners
        self._dispatcher = dispatcher
        self._stopper = stopper
        self._lease = lease
        self._ending = False
        self._reading: set[asyncio.Task[ReportRequest | None]] = set()

    def end_streams(self) -> None:
        """Ends the runners' streams, each when what it has sent is kept: the server shuts down."""
        self._ending = True
        for reading in self._reading:
            reading.cancel()

    async def _messages(self, requests: AsyncIterator[ReportRequest]) -> AsyncIterator[ReportRequest]:
        """Goes through a runner's messages until it sends no more, or `end_streams`."""
        while not self._ending:
            reading = asyncio.ensure_future(_next(requests))
            self._reading.add(reading)
            try:
                message = await reading
            except asyncio.CancelledError:
                if not self._ending:
                    raise
                return
            finally:
                self._reading.discard(reading)
            if message is None:
                return
            yield message

    async def Report(  # noqa: N802 (the contract's name)
        self, requests: AsyncIterator[ReportRequest], context: CallContext
    ) -> AsyncIterator[ReportResponse]:
        """Keeps the reports of one runner for as long as its stream lives.

        The lease is written now and then, not for each message; the answer says what is left of it.
        """
        runner: RunnerInfo | None = None
        renewal = Renewal(0, ())
        renewed_at = 0.0
        missing = MissingChains(patience=self._lease / 2)
        async for message in self._messages(requests):
            if message.HasField("runner"):
                runner = _checked_runner(message.runner)
            elif runner is None:
                raise InvalidArgumentError(
                    "the first message of a runner's stream must say who it is", reason="RUNNER_UNKNOWN"
                )
            now = time.monotonic()
            is_first = message.HasField("runner")
            if not is_first and renewal.others:
                await self._remove_replaced(renewal.others)
                renewal = Renewal(renewal.token, ())
            if is_first or message.draining or message.holds_all or now - renewed_at > self._lease / 5:
                token = None if is_first else renewal.token
                renewal = await self._store.renew_runner(
                    runner, self._lease, draining=message.draining, token=token
                )
                renewed_at = now
                self._heard(runner, draining=message.draining)
            refused = await self._applied(runner.runner_id, message.chains) if message.chains else []
            if message.holds_all:
                await self._look_at_held(runner, message.held, missing, renewal.token)
            if message.leaving:
                await self._store.remove_runner(runner.runner_id)
                self._left(runner.runner_id)
            left = self._lease - (now - renewed_at)
            yield ReportResponse(number=message.number, refused=refused, lease=_duration(left))
            # Now the runner has the answer, and has done with what has ended.
            ended = sum(chain.WhichOneof("end") is not None for chain in message.chains)
            if ended:
                self._dispatcher.freed(runner.runner_id, ended)

    async def Finish(self, request: FinishRequest, context: CallContext) -> FinishResponse:  # noqa: N802
        """Sets the final state of a RUNNING request."""
        if request.state not in FINAL_STATES:
            raise InvalidArgumentError(
                f"state {request.state} is none that a request can end in: "
                "must be COMPLETE (3), FAIL (4) or STOPPED (6)",
                reason="BAD_STATE",
                request_id=request.request_id,
            )
        if not request.HasField("finished_at"):
            request.finished_at.GetCurrentTime()
        if not 0 < request.finished_at.seconds <= _LATEST_TIME:
            raise _invalid("finishedAt must be within the years 1970 to 2037", request.request_id)
        _check_count(request.finished_jobs, request.request_id)
        finished_at = request.finished_at.ToMicroseconds()
        await self._store.finish(request.request_id, State(request.state), finished_at, request.finished_jobs)
        return FinishResponse()

    async def Suspend(self, request: SuspendRequest, context: CallContext) -> SuspendResponse:  # noqa: N802
        """Stores a suspended chain."""
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
        """Sets the number of finished jobs."""
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
        """Records one finished try and returns the entry that stands for it, which is the first."""
        entry = request.entry
        entry.request_id = request.request_id
        _check_entry(entry)
        return RecordLogResponse(entry=await self._store.record_log(entry))

    async def _applied(self, runner_id: str, reports: Sequence[ChainReport]) -> list[RefusedReport]:
        """Stores reports. One that cannot be stored is refused, and keeps no other from it."""
        try:
            return await self._store.apply_reports(runner_id, reports)
        except (InternalError, InvalidArgumentError) as error:
            if len(reports) == 1:
                assignment = reports[0].assignment
                logger.error("report cannot be stored", request_id=assignment.request_id, error=str(error))
                return [RefusedReport(assignment=assignment, reason=REFUSAL_REASON_INVALID)]
        return [refusal for report in reports for refusal in await self._applied(runner_id, [report])]

    async def _look_at_held(
        self, runner: RunnerInfo, held: Iterable[Assignment], missing: MissingChains, token: int
    ) -> None:
        """Compares what a runner has with what is assigned to it.

        Requests that it does not have are taken over; those that it has and that are to stop are stopped:
        it may not have been told, as when a Request Manager died.
        """
        assigned = await self._store.assigned_to(runner.runner_id)
        pairs = {(one.request_id, one.epoch) for one in held}
        for request_id, one in assigned.items():
            if one.stop_requested and (request_id, one.epoch) in pairs:
                self._stopper.tell_runner(runner, request_id)
        epochs = {request_id: one.epoch for request_id, one in assigned.items()}
        for request_id, epoch in missing.update(epochs, pairs):
            logger.warning(
                "runner does not have a request", runner_id=runner.runner_id, request_id=request_id
            )
            self._dispatcher.recover_soon(Assignment(request_id=request_id, epoch=epoch), token)

    async def _remove_replaced(self, runner_ids: Iterable[str]) -> None:
        """Ends the leases of runners whose address a runner has that has just written again.

        It is alive after they were seen in the database, so it is they that are gone: it would not do to
        tell from one message, since that may be an old one of theirs, read late.
        """
        for runner_id in runner_ids:
            await self._store.remove_runner(runner_id)
            self._left(runner_id)

    def _left(self, runner_id: str) -> None:
        self._runners.remove(runner_id)
        logger.info("runner left", runner_id=runner_id)
        self._dispatcher.wake()

    def _heard(self, runner: RunnerInfo, *, draining: bool) -> None:
        is_new = self._runners.get(runner.runner_id) is None
        self._runners.add(runner)
        if draining:
            self._runners.drain(runner.runner_id)
        if is_new:
            logger.info("runner reports", runner_id=runner.runner_id, url=runner.url)
            self._dispatcher.wake()


async def _next(requests: AsyncIterator[ReportRequest]) -> ReportRequest | None:
    return await anext(requests, None)


def _checked_runner(runner: RunnerInfo) -> RunnerInfo:
    if not (runner.runner_id and runner.url and runner.grpc_address):
        raise InvalidArgumentError(
            "a runner must say its runner_id, url and grpc_address", reason="RUNNER_UNKNOWN"
        )
    return runner


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def _check_count(finished_jobs: int, request_id: str) -> None:
    if finished_jobs > _LARGEST_COUNT:
        raise _invalid(f"finishedJobs must be at most {_LARGEST_COUNT}", request_id)


def _check_entry(entry: JobLog) -> None:
    """Does nothing with a log entry that can be stored, and raises with any other."""
    if not _JOB_ID.fullmatch(entry.job_id):
        raise _invalid("jobId must be four characters of 0-9A-Za-z", entry.request_id)
    if not 0 < getattr(entry, "try") <= MAX_TRY:
        raise _invalid(f"try must be from 1 to {MAX_TRY}", entry.request_id)
    if entry.state not in state_pb2.State.values():
        raise _invalid("state must be the number of a state", entry.request_id)
    if len(entry.type.encode()) > _LONGEST_TYPE or "\0" in entry.type:
        raise _invalid(f"type must have at most {_LONGEST_TYPE} bytes, none of them zero", entry.request_id)


def _invalid(message: str, request_id: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"the report cannot be stored: {message}", reason="BAD_REPORT", request_id=request_id
    )
