"""The live Job Runners: which ones there are, which one gets the next chain, and how to call them.

The database says which runners are alive, and `refresh` reads that. Between two refreshes, runners that
report to this process are added.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio
import structlog

from spincycle_grpc.channels import open_async_channel
from spincycle_grpc.errors import SpinCycleError, UnavailableError
from spincycle_grpc.rpc_errors import explained_async_error
from spincycle_grpc.tls_errors import ClientTls
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
"""Seconds in which a runner must accept or refuse chains, or a stop."""

STATUS_TIMEOUT = 1.0
"""Seconds in which a runner must list its running jobs."""

_Answer = TypeVar("_Answer")


class _Calls:
    """The calls to the runner at one address.

    Attributes:
        channel: The channel to the address.
        credentials: The credentials of the channel.
        stub: All methods.
        start_job_chains: StartJobChains, which takes a serialized request.
    """

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.credentials = credentials
        self.channel = channel = open_async_channel(address, credentials)
        self.stub: JobRunnerAsyncStub = JobRunnerStub(channel)
        service = job_runner_pb2.DESCRIPTOR.services_by_name["JobRunner"]
        self.start_job_chains: grpc.aio.UnaryUnaryMultiCallable[bytes, StartJobChainsResponse] = (
            channel.unary_unary(
                f"/{service.full_name}/StartJobChains",
                response_deserializer=StartJobChainsResponse.FromString,
            )
        )


class Runners:
    """The live Job Runners.

    Args:
        store: Says which runners are alive.
        credentials: Returns the newest credentials for TLS to the runners; None for plaintext.
        call_metadata: Returns the metadata that identifies this server to the runners.
    """

    def __init__(
        self,
        store: Store,
        credentials: Callable[[], grpc.ChannelCredentials | None] = lambda: None,
        call_metadata: Callable[[], Sequence[tuple[str, str]]] = tuple,
    ) -> None:
        self._store = store
        self._credentials = credentials
        self._call_metadata = call_metadata
        self._live: dict[str, RunnerInfo] = {}
        self._draining: set[str] = set()
        self._heard: dict[str, RunnerInfo] = {}  # since the last refresh began
        self._calls: dict[str, _Calls] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._senders: dict[str, ChainSender] = {}
        self._turn = 0
        self._full = FullRunners()

    async def refresh(self) -> None:
        """Reads the live runners from the database, and closes the channels to all others."""
        self._heard.clear()
        live = await self._store.live_runners()
        live += [(runner, False) for runner in self._heard.values()]  # The read may have missed them.
        self._live = {runner.runner_id: runner for runner, _ in live}
        draining = {runner.runner_id for runner, draining in live if draining}
        self._draining = draining | (self._draining & self._heard.keys())
        for runner_id in [runner_id for runner_id in self._senders if runner_id not in self._live]:
            await self._senders.pop(runner_id).close()
        self._full.keep(set(self._live))
        used = {runner.grpc_address for runner, _ in live}
        for address in [address for address in self._calls if address not in used]:
            await self._calls.pop(address).channel.close()

    def add(self, runner: RunnerInfo) -> None:
        """Adds a runner that has just reported to this process. It replaces others at its address."""
        for other in [other for other in self._live.values() if other.grpc_address == runner.grpc_address]:
            del self._live[other.runner_id]
        self._live[runner.runner_id] = self._heard[runner.runner_id] = runner

    def remove(self, runner_id: str) -> None:
        """Removes a runner that is not alive."""
        self._heard.pop(runner_id, None)
        self._live.pop(runner_id, None)

    def drain(self, runner_id: str) -> None:
        """Marks a runner that shuts down: it gets no more chains."""
        self._draining.add(runner_id)

    def get(self, runner_id: str) -> RunnerInfo | None:
        """Returns a live runner; None if it is not alive."""
        return self._live.get(runner_id)

    def mark_full(self, runner_id: str) -> None:
        """Marks a runner that has refused a chain because it is full: it gets chains only as it has room."""
        self._full.refused(runner_id)

    def chains_ended(self, runner_id: str, chains: int) -> bool:
        """Gives a full runner room for as many chains as have ended there. Returns whether it was full."""
        return self._full.chains_ended(runner_id, chains)

    @property
    def any_free(self) -> bool:
        """Whether a live runner neither drains nor is full."""
        return any(
            runner_id not in self._draining and runner_id not in self._full for runner_id in self._live
        )

    def pick(self) -> RunnerInfo | None:
        """Returns the next runner that has room for a chain, round-robin; None if no runner has."""
        able = [
            runner
            for runner_id, runner in self._live.items()
            if runner_id not in self._draining and self._full.probe(runner_id)
        ]
        if not able:
            return None
        self._turn += 1
        picked = able[self._turn % len(able)]
        self._full.chain_given(picked.runner_id)
        return picked

    async def start_job_chain(self, runner: RunnerInfo, chain: bytes) -> None:
        """Delivers a chain to a runner. Safe to repeat.

        Args:
            runner: The runner.
            chain: The serialized AssignedJobChain.

        Raises:
            SpinCycleError: An error of NewJobChain or ResumeJobChain, or the runner cannot be reached.
        """
        sender = self._senders.get(runner.runner_id)
        if sender is None:
            sender = self._senders[runner.runner_id] = ChainSender(
                runner.runner_id,
                lambda request: self._call(
                    runner,
                    lambda calls: calls.start_job_chains(
                        request, timeout=CALL_TIMEOUT, metadata=self._call_metadata()
                    ),
                ),
            )
        await sender.send(chain)

    async def stop_job_chain(self, runner: RunnerInfo, request_id: str) -> None:
        """Tells the runner to stop a chain. Safe to repeat.

        Raises:
            SpinCycleError: An error of StopJobChain, or the runner cannot be reached.
        """
        request = StopJobChainRequest(request_id=request_id)
        await self._call(
            runner,
            lambda calls: calls.stub.StopJobChain(
                request, timeout=CALL_TIMEOUT, metadata=self._call_metadata()
            ),
        )

    async def running_jobs(self, status_filter: StatusFilter) -> list[JobStatus]:
        """Returns the running jobs of all live runners, oldest first.

        It asks all runners at once. The jobs of a runner that does not answer in time are missing, and a
        warning in the log says so.
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
                lambda calls: calls.stub.RunningJobs(
                    request, timeout=STATUS_TIMEOUT, wait_for_ready=False, metadata=self._call_metadata()
                ),
            )
        except SpinCycleError as error:
            if error.reason != "JOB_CHAIN_NOT_FOUND":
                logger.warning(
                    "runner did not list its running jobs", runner_id=runner.runner_id, error=str(error)
                )
            return []
        return list(answer.jobs)

    async def _call(self, runner: RunnerInfo, call: Callable[[_Calls], Awaitable[_Answer]]) -> _Answer:
        try:
            return await call(self._calls_to(runner.grpc_address))
        except grpc.aio.AioRpcError as error:
            client = ClientTls(self._credentials() is not None, "jr_client.tls")
            raise await explained_async_error(error, runner.grpc_address, client) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The caller was not cancelled: the channel was closed, because the runner is gone.
            raise UnavailableError(
                f"job runner {runner.runner_id} is gone: try again", reason="RUNNER_GONE"
            ) from None

    def _calls_to(self, address: str) -> _Calls:
        calls = self._calls.get(address)
        credentials = self._credentials()
        if calls is None or calls.credentials is not credentials:
            if calls is not None:
                self._close_after_calls(calls.channel)
            calls = self._calls[address] = _Calls(address, credentials)
        return calls

    def _close_after_calls(self, channel: grpc.aio.Channel) -> None:
        """Closes a channel with old credentials once its calls have ended."""
        closing = asyncio.create_task(channel.close(CALL_TIMEOUT))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Cancels all calls, and closes all channels."""
        senders, self._senders = list(self._senders.values()), {}
        await asyncio.gather(*(sender.close() for sender in senders))
        all_calls, self._calls = list(self._calls.values()), {}
        await asyncio.gather(*(calls.channel.close() for calls in all_calls), *self._closing)
