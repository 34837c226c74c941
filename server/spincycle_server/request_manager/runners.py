"""The live Job Runners: who they are, which one gets the next chain, and how to call them.

The database says which runners are alive. This is a copy of that, made anew by `refresh`, plus
what this process has heard itself since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio
import structlog

from spincycle_grpc.channels import open_async_channel
from spincycle_grpc.errors import SpinCycleError, UnavailableError
from spincycle_grpc.rpc_errors import error_from_rpc
from spincycle_grpc.v1 import job_runner_pb2
from spincycle_grpc.v1.job_runner_pb2 import (
    RunningJobsRequest,
    StartJobChainsResponse,
    StopJobChainRequest,
)
from spincycle_grpc.v1.job_runner_pb2_grpc import JobRunnerStub
from spincycle_grpc.v1.runner_reports_pb2 import RunnerInfo
from spincycle_grpc.v1.status_pb2 import JobStatus, StatusFilter
from spincycle_server.request_manager.chain_sender import ChainSender
from spincycle_server.request_manager.full_runners import FullRunners

if TYPE_CHECKING:
    from spincycle_grpc.v1.job_runner_pb2_grpc import JobRunnerAsyncStub
    from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

CALL_TIMEOUT = 10.0
"""Seconds that a runner has to take a chain or a stop."""

STATUS_TIMEOUT = 1.0
"""Seconds that a runner has to say what it runs."""

_Answer = TypeVar("_Answer")


class _Calls:
    """What can be called at one address.

    Attributes:
        channel: The connection.
        stub: All methods.
        start_job_chains: StartJobChains of a request that is serialized.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.stub: JobRunnerAsyncStub = JobRunnerStub(channel)
        service = job_runner_pb2.DESCRIPTOR.services_by_name["JobRunner"]
        self.start_job_chains: grpc.aio.UnaryUnaryMultiCallable[bytes, StartJobChainsResponse] = (
            channel.unary_unary(
                f"/{service.full_name}/StartJobChains",
                response_deserializer=StartJobChainsResponse.FromString,
            )
        )


class Runners:
    """The Job Runners that can be given chains.

    Args:
        store: Says which runners are alive.
        credentials: For TLS to the runners; None: plain text.

    Attributes:
        full: Those of them that take no more for now.
    """

    def __init__(self, store: Store, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._store = store
        self._credentials = credentials
        self._live: dict[str, RunnerInfo] = {}
        self._draining: set[str] = set()
        self._heard: dict[str, RunnerInfo] = {}  # since the database was last read
        self._calls: dict[str, _Calls] = {}
        self._senders: dict[str, ChainSender] = {}
        self._turn = 0
        self.full = FullRunners()

    async def refresh(self) -> None:
        """Reads from the database which runners are alive, and closes channels to those that are not."""
        self._heard.clear()
        live = await self._store.live_runners()
        live += [(runner, False) for runner in self._heard.values()]  # after the database was read, perhaps
        self._live = {runner.runner_id: runner for runner, _ in live}
        draining = {runner.runner_id for runner, draining in live if draining}
        self._draining = draining | (self._draining & self._heard.keys())
        for runner_id in [runner_id for runner_id in self._senders if runner_id not in self._live]:
            await self._senders.pop(runner_id).close()
        self.full.keep(set(self._live))
        used = {runner.grpc_address for runner, _ in live}
        for address in [address for address in self._calls if address not in used]:
            await self._calls.pop(address).channel.close()

    def add(self, runner: RunnerInfo) -> None:
        """Takes in a runner that just reported to this process."""
        for other in [other for other in self._live.values() if other.grpc_address == runner.grpc_address]:
            del self._live[other.runner_id]
        self._live[runner.runner_id] = self._heard[runner.runner_id] = runner

    def remove(self, runner_id: str) -> None:
        """Forgets a runner that has left."""
        self._heard.pop(runner_id, None)
        self._live.pop(runner_id, None)

    def drain(self, runner_id: str) -> None:
        """Gives the runner no more chains."""
        self._draining.add(runner_id)

    def get(self, runner_id: str) -> RunnerInfo | None:
        """Returns the runner, or None when it is not alive."""
        return self._live.get(runner_id)

    @property
    def any_free(self) -> bool:
        """Whether there is a runner that can be given chains and has not refused one since it was full."""
        return any(
            runner_id not in self._draining and not self.full.is_known(runner_id) for runner_id in self._live
        )

    def pick(self, excluded: Collection[str] = ()) -> RunnerInfo | None:
        """Returns the runner whose turn it is, or None when none can be given a chain."""
        able = [
            runner
            for runner_id, runner in self._live.items()
            if runner_id not in self._draining and runner_id not in excluded and self.full.has_room(runner_id)
        ]
        if not able:
            return None
        self._turn += 1
        picked = able[self._turn % len(able)]
        self.full.given(picked.runner_id)
        return picked

    async def start_job_chain(self, runner: RunnerInfo, chain: bytes) -> None:
        """Gives the runner a chain, a serialized AssignedJobChain. Safe to repeat.

        Raises:
            SpinCycleError: As the contracts of NewJobChain and ResumeJobChain say, or the runner cannot
                be reached.
        """
        sender = self._senders.get(runner.runner_id)
        if sender is None:
            sender = self._senders[runner.runner_id] = ChainSender(
                runner.runner_id,
                lambda request: self._call(
                    runner, lambda calls: calls.start_job_chains(request, timeout=CALL_TIMEOUT)
                ),
            )
        await sender.send(chain)

    async def stop_job_chain(self, runner: RunnerInfo, request_id: str) -> None:
        """Tells the runner to stop a chain. Safe to repeat.

        Raises:
            SpinCycleError: As the contract of StopJobChain says, or the runner cannot be reached.
        """
        request = StopJobChainRequest(request_id=request_id)
        await self._call(runner, lambda calls: calls.stub.StopJobChain(request, timeout=CALL_TIMEOUT))

    async def running_jobs(self, status_filter: StatusFilter) -> list[JobStatus]:
        """Asks all live runners at once for their running jobs.

        A runner that does not answer in time is left out, and the log says so.

        Returns:
            The running jobs, oldest first.
        """
        answers = await asyncio.gather(
            *(self._running_jobs_of(runner, status_filter) for runner in list(self._live.values()))
        )
        return sorted((job for jobs in answers for job in jobs), key=lambda job: job.started_at)

    async def _running_jobs_of(self, runner: RunnerInfo, status_filter: StatusFilter) -> list[JobStatus]:
        request = RunningJobsRequest(filter=status_filter)
        try:
            answer = await self._call(
                runner,
                lambda calls: calls.stub.RunningJobs(request, timeout=STATUS_TIMEOUT, wait_for_ready=False),
            )
        except SpinCycleError as error:
            if error.reason != "JOB_CHAIN_NOT_FOUND":
                logger.warning("runner did not tell its status", runner_id=runner.runner_id, error=str(error))
            return []
        return list(answer.jobs)

    async def _call(self, runner: RunnerInfo, call: Callable[[_Calls], Awaitable[_Answer]]) -> _Answer:
        try:
            return await call(self._calls_to(runner.grpc_address))
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, runner.grpc_address) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # It is not the caller that was cancelled: the channel was closed, since the runner is gone.
            raise UnavailableError(
                f"job runner {runner.runner_id} is gone: try again", reason="RUNNER_GONE"
            ) from None

    def _calls_to(self, address: str) -> _Calls:
        calls = self._calls.get(address)
        if calls is None:
            calls = self._calls[address] = _Calls(open_async_channel(address, self._credentials))
        return calls

    async def close(self) -> None:
        """Gives up what is on its way, and closes all channels."""
        senders, self._senders = list(self._senders.values()), {}
        await asyncio.gather(*(sender.close() for sender in senders))
        all_calls, self._calls = list(self._calls.values()), {}
        await asyncio.gather(*(calls.channel.close() for calls in all_calls))
