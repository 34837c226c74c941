"""The servicer of JobRunner: starts, resumes and stops chains, and lists running jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import InvalidArgumentError, NotFoundError, ResourceExhaustedError, SpinCycleError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import job_runner_pb2 as messages
from spincycle_grpc.v1.output_pb2 import OUTPUT_STREAM_STDERR, OUTPUT_STREAM_STDOUT, OutputGap
from spincycle_grpc.version import API_VERSION
from spincycle_server.telemetry.limits import OUTPUT_STREAMS, LimitUse

if TYPE_CHECKING:
    from spincycle_grpc.v1.status_pb2 import JobStatus
    from spincycle_server.job_runner.chain_outputs import OutputEvent
    from spincycle_server.job_runner.chains import Chains
    from spincycle_server.rpc import CallContext

logger = structlog.get_logger(__name__)

_STARTED = messages.JobChainStart()
MAX_FOLLOWERS = 2000
"""The maximum number of open streams of FollowOutput."""

_STARTED_AT_ONCE = 20
"""Chains to start before other tasks of the event loop get a turn."""


class JobRunnerService:
    """Implements the methods of JobRunner.

    Args:
        chains: The chains that this runner holds.

    Attributes:
        base_url: The public URL of the runner's HTTP server, or "" until the server listens.
    """

    def __init__(self, chains: Chains) -> None:
        self._chains = chains
        self.base_url = ""
        self._followers = 0

    async def NewJobChain(  # noqa: N802 (this and the names below are the contract's)
        self, request: messages.NewJobChainRequest, context: CallContext
    ) -> messages.NewJobChainResponse:
        """Starts a new chain."""
        self._chains.check_runner(request.runner_id)
        await self._chains.start_new(request.job_chain, request.epoch)
        return messages.NewJobChainResponse(url=self._url(request.job_chain.request_id))

    async def ResumeJobChain(  # noqa: N802
        self, request: messages.ResumeJobChainRequest, context: CallContext
    ) -> messages.ResumeJobChainResponse:
        """Resumes a suspended chain."""
        self._chains.check_runner(request.runner_id)
        await self._chains.resume(request.suspended_job_chain, request.epoch)
        return messages.ResumeJobChainResponse(url=self._url(request.suspended_job_chain.request_id))

    async def StartJobChains(  # noqa: N802
        self, request: messages.StartJobChainsRequest, context: CallContext
    ) -> messages.StartJobChainsResponse:
        """Starts or resumes several chains. Each has a result of its own."""
        self._chains.check_runner(request.runner_id)
        starts = []
        for assigned in request.chains:
            starts.append(await self._start(assigned))
            if len(starts) % _STARTED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return messages.StartJobChainsResponse(starts=starts)

    async def _start(self, assigned: messages.AssignedJobChain) -> messages.JobChainStart:
        try:
            match assigned.WhichOneof("chain"):
                case "job_chain":
                    await self._chains.start_new(assigned.job_chain, assigned.epoch)
                case "suspended_job_chain":
                    suspect = assigned.suspect if assigned.HasField("suspect") else None
                    ending = State(assigned.ending) if assigned.ending else None
                    await self._chains.resume(assigned.suspended_job_chain, assigned.epoch, suspect, ending)
                case _:
                    raise InvalidArgumentError(
                        "the chain is missing: set job_chain or suspended_job_chain",
                        reason="INVALID_JOB_CHAIN",
                    )
        except SpinCycleError as error:
            return messages.JobChainStart(
                error=messages.JobChainStartError(
                    code=error.status.grpc_code, reason=error.reason, message=error.message
                )
            )
        return _STARTED

    async def StopJobChain(  # noqa: N802
        self, request: messages.StopJobChainRequest, context: CallContext
    ) -> messages.StopJobChainResponse:
        """Stops a chain."""
        self._chains.stop(request.request_id, skip_finally=request.skip_finally)
        return messages.StopJobChainResponse()

    async def PauseJobChain(  # noqa: N802
        self, request: messages.PauseJobChainRequest, context: CallContext
    ) -> messages.PauseJobChainResponse:
        """Pauses a chain."""
        self._chains.pause(request.request_id, request.epoch, stops_jobs=request.now)
        return messages.PauseJobChainResponse()

    async def UnpauseJobChain(  # noqa: N802
        self, request: messages.UnpauseJobChainRequest, context: CallContext
    ) -> messages.UnpauseJobChainResponse:
        """Goes on with a chain that pauses."""
        self._chains.unpause(request.request_id, request.epoch)
        return messages.UnpauseJobChainResponse()

    async def EndApproval(  # noqa: N802
        self, request: messages.EndApprovalRequest, context: CallContext
    ) -> messages.EndApprovalResponse:
        """Ends the wait of a job for an approval."""
        self._chains.end_approval(request.outcome)
        return messages.EndApprovalResponse()

    async def EndLimitWait(  # noqa: N802
        self, request: messages.EndLimitWaitRequest, context: CallContext
    ) -> messages.EndLimitWaitResponse:
        """Ends the wait of a sequence for the keys of its limits."""
        self._chains.end_limit_wait(request.outcome)
        return messages.EndLimitWaitResponse()

    async def RunningJobs(  # noqa: N802
        self, request: messages.RunningJobsRequest, context: CallContext
    ) -> messages.RunningJobsResponse:
        """Returns the running jobs, the oldest first."""
        request_id = request.filter.request_id
        if request_id and not self._chains.holds(request_id):
            raise NotFoundError(
                f"request {request_id} not found", reason="JOB_CHAIN_NOT_FOUND", request_id=request_id
            )
        wanted = set(request.request_ids)
        if request_id:
            wanted.add(request_id)
        jobs: list[JobStatus] = await self._chains.running_jobs(wanted)
        return messages.RunningJobsResponse(jobs=jobs)

    async def FollowOutput(  # noqa: N802
        self, request: messages.JobRunnerFollowOutputRequest, context: CallContext
    ) -> AsyncGenerator[messages.JobRunnerFollowOutputResponse, None]:
        """Yields the output of a try of a held chain."""
        outputs = self._chains.outputs_of(request.request_id, request.epoch, request.job_id)
        if self._followers >= MAX_FOLLOWERS:
            raise ResourceExhaustedError(
                f"the limit of {MAX_FOLLOWERS} streams of output is reached: try again later",
                reason="TOO_MANY_FOLLOWERS",
            )
        offsets = {
            OUTPUT_STREAM_STDOUT: request.stdout_offset,
            OUTPUT_STREAM_STDERR: request.stderr_offset,
        }
        self._followers += 1
        try:
            async with contextlib.aclosing(
                outputs.follow(request.job_id, getattr(request, "try"), offsets)
            ) as events:
                async for event in events:
                    yield _output_message(event)
        finally:
            self._followers -= 1

    async def WatchCapacity(  # noqa: N802
        self, request: messages.WatchCapacityRequest, context: CallContext
    ) -> AsyncGenerator[messages.WatchCapacityResponse, None]:
        """Yields the places that are offered to a Request Manager."""
        self._chains.check_runner(request.runner_id)
        async with contextlib.aclosing(self._chains.capacity.watch(request.wanted_places)) as offers:
            async for places in offers:
                yield messages.WatchCapacityResponse(places=places)

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limits of streams, and how many there are."""
        return (
            LimitUse(OUTPUT_STREAMS, MAX_FOLLOWERS, self._followers),
            *self._chains.capacity.limits(),
        )

    async def Version(  # noqa: N802
        self, request: messages.JobRunnerVersionRequest, context: CallContext
    ) -> messages.JobRunnerVersionResponse:
        """Returns the version of the API."""
        return messages.JobRunnerVersionResponse(version=API_VERSION)

    def _url(self, request_id: str) -> str:
        return f"{self.base_url}/api/v1/job-chains/{request_id}"


def _output_message(event: OutputEvent) -> messages.JobRunnerFollowOutputResponse:
    match event:
        case None:
            return messages.JobRunnerFollowOutputResponse()
        case int():
            return messages.JobRunnerFollowOutputResponse(begun_try=event)
        case OutputGap():
            return messages.JobRunnerFollowOutputResponse(gap=event)
        case _:
            return messages.JobRunnerFollowOutputResponse(text=event)
