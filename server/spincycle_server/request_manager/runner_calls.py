"""The calls of a Request Manager to Job Runners. They carry the key of the installation's servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from spincycle_grpc.channels import is_this_machine, open_async_channel
from spincycle_grpc.errors import FailedPreconditionError, SpinCycleError, UnavailableError
from spincycle_grpc.rpc_errors import error_from_rpc, explained_async_error
from spincycle_grpc.tls_errors import ClientTls
from spincycle_grpc.v1 import job_runner_pb2
from spincycle_grpc.v1.approval_pb2 import ApprovalOutcome
from spincycle_grpc.v1.job_runner_pb2 import (
    EndApprovalRequest,
    EndLimitWaitRequest,
    JobRunnerFollowOutputRequest,
    JobRunnerFollowOutputResponse,
    PauseJobChainRequest,
    RunningJobsRequest,
    StartJobChainsRequest,
    StartJobChainsResponse,
    StopJobChainRequest,
    UnpauseJobChainRequest,
    WatchCapacityRequest,
)
from spincycle_grpc.v1.job_runner_pb2_grpc import JobRunnerStub
from spincycle_grpc.v1.limit_pb2 import SequenceLimitOutcome
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_grpc.v1.status_pb2 import JobStatus, StatusFilter

if TYPE_CHECKING:
    from spincycle_grpc.v1.job_runner_pb2_grpc import JobRunnerAsyncStub

CALL_TIMEOUT = 10.0
"""Seconds in which a runner must accept or refuse chains, or a stop."""

STATUS_TIMEOUT = 1.0
"""Seconds in which a runner must list its running jobs."""

_Answer = TypeVar("_Answer")


class _Connection:
    """The calls to the runner at one address.

    Attributes:
        channel: The channel to the address.
        credentials: The credentials of the channel.
        stub: All methods.
        start_job_chains: StartJobChains, which takes a serialized request.
    """

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None, *, shares: bool) -> None:
        self.credentials = credentials
        self.channel = channel = open_async_channel(
            address, credentials, shares_connection=shares, uses_proxy=False
        )
        self.stub: JobRunnerAsyncStub = JobRunnerStub(channel)
        service = job_runner_pb2.DESCRIPTOR.services_by_name["JobRunner"]
        self.start_job_chains: grpc.aio.UnaryUnaryMultiCallable[bytes, StartJobChainsResponse] = (
            channel.unary_unary(
                f"/{service.full_name}/StartJobChains",
                response_deserializer=StartJobChainsResponse.FromString,
            )
        )


class RunnerCalls:
    """Calls Job Runners.

    With TLS, the certificate of a runner must be signed by the CA and have the name of its address. That is
    the check of whom this server talks to: gRPC for Python does not show a client the server's certificate.

    Args:
        credentials: Returns the newest credentials for TLS to the runners; None for plaintext.
        call_metadata: Returns the metadata that identifies this server to the runners.
        only_own: Whether all runners are in this process. Calls to it never leave the machine.
    """

    def __init__(
        self,
        credentials: Callable[[], grpc.ChannelCredentials | None] = lambda: None,
        call_metadata: Callable[[], Sequence[tuple[str, str]]] = tuple,
        *,
        only_own: bool = False,
    ) -> None:
        self._credentials = credentials
        self._metadata = call_metadata
        self._only_own = only_own
        self._connections: dict[tuple[str, bool], _Connection] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def may_call(self, address: str) -> bool:
        """Whether a call to an address does not send the servers' key in plain text to another machine."""
        is_protected = self._only_own or self._credentials() is not None or is_this_machine(address)
        return is_protected or not self._metadata()

    def check_may_call(self, runner: RunnerInfo) -> None:
        """Checks that a runner can be called without sending the servers' key in plain text.

        Raises:
            FailedPreconditionError: It cannot. Reason: NEEDS_TLS.
        """
        if not self.may_call(runner.grpc_address):
            raise FailedPreconditionError(
                f"{runner.grpc_address} is not called without TLS, because calls carry the servers' key: set "
                "jr_client.tls.* on the Request Manager and server.tls.* on the Job Runner, or let the Job "
                "Runner listen on loopback",
                reason="NEEDS_TLS",
            )

    async def start_job_chains(self, runner: RunnerInfo, request: bytes) -> StartJobChainsResponse:
        """Calls StartJobChains with a serialized request.

        Raises:
            SpinCycleError: An error of the method, or the runner cannot be reached. So do the methods below.
        """
        return await self._call(
            runner,
            lambda to: to.start_job_chains(request, timeout=CALL_TIMEOUT, metadata=self._metadata()),
        )

    async def stop_job_chain(self, runner: RunnerInfo, request_id: str, *, skip_finally: bool) -> None:
        """Tells a runner to stop a chain, with or without its `finally` parts."""
        request = StopJobChainRequest(request_id=request_id, skip_finally=skip_finally)
        await self._call(
            runner,
            lambda to: to.stub.StopJobChain(request, timeout=CALL_TIMEOUT, metadata=self._metadata()),
        )

    async def pause_job_chain(self, runner: RunnerInfo, assignment: Assignment, *, stops_jobs: bool) -> None:
        """Tells a runner to pause a chain."""
        request = PauseJobChainRequest(
            request_id=assignment.request_id, epoch=assignment.epoch, now=stops_jobs
        )
        await self._call(
            runner,
            lambda to: to.stub.PauseJobChain(request, timeout=CALL_TIMEOUT, metadata=self._metadata()),
        )

    async def unpause_job_chain(self, runner: RunnerInfo, assignment: Assignment) -> None:
        """Tells a runner to go on with a chain that it pauses."""
        request = UnpauseJobChainRequest(request_id=assignment.request_id, epoch=assignment.epoch)
        await self._call(
            runner,
            lambda to: to.stub.UnpauseJobChain(request, timeout=CALL_TIMEOUT, metadata=self._metadata()),
        )

    async def end_approval(self, runner: RunnerInfo, outcome: ApprovalOutcome) -> None:
        """Tells a runner how a wait for an approval has ended."""
        request = EndApprovalRequest(outcome=outcome)
        await self._call(
            runner,
            lambda to: to.stub.EndApproval(request, timeout=CALL_TIMEOUT, metadata=self._metadata()),
        )

    async def end_limit_wait(self, runner: RunnerInfo, outcome: SequenceLimitOutcome) -> None:
        """Tells a runner how a sequence's wait for its keys has ended."""
        request = EndLimitWaitRequest(outcome=outcome)
        await self._call(
            runner,
            lambda to: to.stub.EndLimitWait(request, timeout=CALL_TIMEOUT, metadata=self._metadata()),
        )

    async def running_jobs(
        self, runner: RunnerInfo, status_filter: StatusFilter, request_ids: Sequence[str] = ()
    ) -> Sequence[JobStatus]:
        """Returns the running jobs of a runner, of the requests with the given ids; without ids, of all."""
        request = RunningJobsRequest(filter=status_filter, request_ids=request_ids)
        answer = await self._call(
            runner,
            lambda to: to.stub.RunningJobs(
                request, timeout=STATUS_TIMEOUT, wait_for_ready=False, metadata=self._metadata()
            ),
        )
        return answer.jobs

    async def follow_output(
        self, runner: RunnerInfo, request: JobRunnerFollowOutputRequest
    ) -> AsyncGenerator[JobRunnerFollowOutputResponse, None]:
        """Yields the answers of FollowOutput.

        Its streams have their own connection, so that they take no stream from other calls.
        """
        self.check_may_call(runner)
        connection = self._connection(runner.grpc_address, for_streams=True)
        call = connection.stub.FollowOutput(request, metadata=self._metadata())
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise await explained_async_error(error, runner.grpc_address, self._client_tls) from error
        except asyncio.CancelledError:
            raise _cancelled_or_gone(runner) from None
        finally:
            call.cancel()

    async def watch_capacity(self, runner: RunnerInfo, places: int) -> AsyncGenerator[int, None]:
        """Yields how many places a runner offers, until it has offered as many as are wanted."""
        self.check_may_call(runner)
        request = WatchCapacityRequest(runner_id=runner.runner_id, wanted_places=places)
        # One stream for each runner, so it takes no connection of its own.
        call = self._connection(runner.grpc_address).stub.WatchCapacity(request, metadata=self._metadata())
        try:
            async for answer in call:
                yield answer.places
        except grpc.aio.AioRpcError as error:
            raise await explained_async_error(error, runner.grpc_address, self._client_tls) from error
        except asyncio.CancelledError:
            raise _cancelled_or_gone(runner) from None
        finally:
            call.cancel()

    async def error_at_address(self, runner: RunnerInfo, limit: float) -> SpinCycleError | None:
        """Returns None if a runner answers at its address, otherwise the error.

        The call has its own connection, because the shared one may still wait before it connects again to an
        earlier runner.

        Args:
            runner: The runner.
            limit: Seconds in which it must answer.
        """
        self.check_may_call(runner)
        request = StartJobChainsRequest(runner_id=runner.runner_id)
        address = runner.grpc_address
        async with open_async_channel(
            address, self._credentials(), shares_connection=False, uses_proxy=False
        ) as channel:
            stub: JobRunnerAsyncStub = JobRunnerStub(channel)
            try:
                await stub.StartJobChains(request, timeout=limit, metadata=self._metadata())
            except grpc.aio.AioRpcError as error:
                return error_from_rpc(error, address, self._client_tls)
        return None

    async def _call(self, runner: RunnerInfo, call: Callable[[_Connection], Awaitable[_Answer]]) -> _Answer:
        self.check_may_call(runner)
        try:
            return await call(self._connection(runner.grpc_address))
        except grpc.aio.AioRpcError as error:
            raise await explained_async_error(error, runner.grpc_address, self._client_tls) from error
        except asyncio.CancelledError:
            raise _cancelled_or_gone(runner) from None

    @property
    def _client_tls(self) -> ClientTls:
        return ClientTls(self._credentials() is not None, "jr_client.tls")

    def _connection(self, address: str, *, for_streams: bool = False) -> _Connection:
        connection = self._connections.get((address, for_streams))
        credentials = self._credentials()
        if connection is None or connection.credentials is not credentials:
            if connection is not None:
                self._close_after_calls(connection.channel)
            connection = _Connection(address, credentials, shares=not for_streams)
            self._connections[address, for_streams] = connection
        return connection

    def _close_after_calls(self, channel: grpc.aio.Channel) -> None:
        """Closes a channel with old credentials once its calls have ended."""
        closing = asyncio.create_task(channel.close(CALL_TIMEOUT))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def keep(self, addresses: Collection[str]) -> None:
        """Closes the channels to all other addresses."""
        for key in [key for key in self._connections if key[0] not in addresses]:
            await self._connections.pop(key).channel.close()

    async def close(self) -> None:
        """Cancels all calls, and closes all channels."""
        connections, self._connections = list(self._connections.values()), {}
        await asyncio.gather(*(connection.channel.close() for connection in connections), *self._closing)


def _cancelled_or_gone(runner: RunnerInfo) -> BaseException:
    """Returns the error of a call that was cancelled.

    If the caller was not cancelled, the channel was closed, because the runner is gone.
    """
    task = asyncio.current_task()
    if task is None or task.cancelling():
        return asyncio.CancelledError()
    return UnavailableError(f"job runner {runner.runner_id} is gone: try again", reason="RUNNER_GONE")
