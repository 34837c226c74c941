"""Calls to Job Runners: to whom the servers' key is sent, and who answers at an address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme

from spincycle_grpc.errors import ERROR_CLASSES, FailedPreconditionError, Status, UnavailableError
from spincycle_grpc.v1 import job_runner_pb2
from spincycle_grpc.v1.job_runner_pb2 import (
    JobRunnerFollowOutputRequest,
    JobRunnerFollowOutputResponse,
    RunningJobsResponse,
    StartJobChainsRequest,
    StartJobChainsResponse,
    WatchCapacityRequest,
    WatchCapacityResponse,
)
from spincycle_grpc.v1.runner_reports_pb2 import RunnerInfo
from spincycle_grpc.v1.status_pb2 import JobStatus, StatusFilter
from spincycle_server.identity.cluster import KEY_HEADER
from spincycle_server.request_manager.runner_calls import RunnerCalls
from spincycle_server.rpc import CallContext, Gate, GrpcServer, MethodTable
from tests.limits import STEP
from tests.rpc.servers import serving

JOB_RUNNER = job_runner_pb2.DESCRIPTOR.services_by_name["JobRunner"]
ID, OTHER_ID = "9vb2d3q0c7k5r1n8m4tg", "0" * 20
LIMIT = 60.0


def with_key() -> tuple[tuple[str, str], ...]:
    return ((KEY_HEADER, "k" * 40),)


class Runner:
    """A runner that remembers the keys with which it was called."""

    NewJobChain = ResumeJobChain = StopJobChain = PauseJobChain = UnpauseJobChain = None
    EndApproval = EndLimitWait = None
    Version = None

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.open_streams = 0
        self.stream_ended = asyncio.Event()

    async def StartJobChains(self, request: StartJobChainsRequest, context: CallContext) -> Any:
        self.keys.append(context.credentials.header(KEY_HEADER))
        if request.runner_id != ID:
            raise FailedPreconditionError("another runner is here", reason="OTHER_RUNNER")
        return StartJobChainsResponse()

    async def FollowOutput(
        self, request: JobRunnerFollowOutputRequest, context: CallContext
    ) -> AsyncIterator[JobRunnerFollowOutputResponse]:
        self.keys.append(context.credentials.header(KEY_HEADER))
        yield JobRunnerFollowOutputResponse(begun_try=1)
        self.open_streams += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.open_streams -= 1
            self.stream_ended.set()

    async def WatchCapacity(
        self, request: WatchCapacityRequest, context: CallContext
    ) -> AsyncIterator[WatchCapacityResponse]:
        self.keys.append(context.credentials.header(KEY_HEADER))
        if request.runner_id != ID:
            raise FailedPreconditionError("another runner is here", reason="OTHER_RUNNER")
        yield WatchCapacityResponse(places=request.wanted_places)

    async def RunningJobs(self, request: object, context: CallContext) -> RunningJobsResponse:
        self.keys.append(context.credentials.header(KEY_HEADER))
        return RunningJobsResponse(jobs=[JobStatus(request_id="x")])


@asynccontextmanager
async def runner_at() -> AsyncIterator[tuple[Runner, str]]:
    runner = Runner()
    async with serving(JOB_RUNNER, runner) as (_, address):
        yield runner, address


def info(address: str, runner_id: str = ID) -> RunnerInfo:
    return RunnerInfo(runner_id=runner_id, url="http://a:1", grpc_address=address)


async def test_calls_to_this_machine_carry_the_key() -> None:
    calls = RunnerCalls(call_metadata=with_key)
    async with runner_at() as (runner, address):
        assert [job.request_id for job in await calls.running_jobs(info(address), StatusFilter())] == ["x"]
        assert runner.keys == ["k" * 40]
        await calls.close()


@pytest.mark.parametrize("address", ["10.0.0.66:1", "runner.example.com:1", "0.0.0.0:1"])
async def test_the_key_is_not_sent_in_plain_text_to_other_machines(address: str) -> None:
    calls = RunnerCalls(call_metadata=with_key)
    for call in (
        calls.start_job_chains(info(address), b""),
        calls.stop_job_chain(info(address), "x", skip_finally=False),
        calls.running_jobs(info(address), StatusFilter()),
        calls.error_at_address(info(address), LIMIT),
    ):
        with pytest.raises(FailedPreconditionError, match="without TLS") as raised:
            await call
        assert raised.value.reason == "NEEDS_TLS"
    assert not calls._connections


def test_other_machines_may_be_called_over_tls_or_without_a_key() -> None:
    assert RunnerCalls(grpc.ssl_channel_credentials, with_key).may_call("10.0.0.66:1")
    assert RunnerCalls().may_call("10.0.0.66:1")


async def test_a_runner_that_is_at_its_address_answers() -> None:
    calls = RunnerCalls(call_metadata=with_key)
    async with runner_at() as (runner, address):
        assert await calls.error_at_address(info(address), LIMIT) is None
        assert runner.keys == ["k" * 40]


async def test_another_runner_at_the_address_is_no_answer() -> None:
    calls = RunnerCalls(call_metadata=with_key)
    async with runner_at() as (_, address):
        error = await calls.error_at_address(info(address, OTHER_ID), LIMIT)
    assert error is not None
    assert error.reason == "OTHER_RUNNER"


async def test_nobody_at_the_address_is_no_answer() -> None:
    async with runner_at() as (_, address):
        pass
    assert await RunnerCalls().error_at_address(info(address), LIMIT) is not None


async def test_new_credentials_are_used_for_the_next_call_while_earlier_calls_end() -> None:
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    server_credentials = grpc.ssl_server_credentials(
        [(own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())]
    )
    newest = [grpc.ssl_channel_credentials(authority.cert_pem.bytes())]
    calls = RunnerCalls(lambda: newest[-1])
    runner = SlowRunner()
    server = GrpcServer([MethodTable(JOB_RUNNER, runner, Gate(10))], "127.0.0.1:0", server_credentials)
    await server.start()
    address = info(f"127.0.0.1:{server.port}")
    slow = asyncio.create_task(calls.start_job_chains(address, b""))
    async with asyncio.timeout(STEP):
        await runner.started.wait()
        newest.append(grpc.ssl_channel_credentials(trustme.CA().cert_pem.bytes()))
        with pytest.raises(UnavailableError, match=r"set jr_client\.tls\.ca_file to the CA"):
            await calls.running_jobs(address, StatusFilter())
        newest.append(grpc.ssl_channel_credentials(authority.cert_pem.bytes()))
        assert len(await calls.running_jobs(address, StatusFilter())) == 1
        runner.may_end.set()
        assert await slow == StartJobChainsResponse()
    await calls.close()
    await server.stop(0)


class SlowRunner(Runner):
    """A runner whose StartJobChains waits."""

    def __init__(self) -> None:
        super().__init__()
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()

    async def StartJobChains(self, request: StartJobChainsRequest, context: CallContext) -> Any:
        self.started.set()
        await self.may_end.wait()
        return StartJobChainsResponse()


FOLLOW = JobRunnerFollowOutputRequest(request_id="a", job_id="aaaa", epoch=1)


async def test_a_stream_of_output_carries_the_key_and_ends_at_the_runner_when_it_is_closed() -> None:
    calls = RunnerCalls(call_metadata=with_key)
    async with runner_at() as (runner, address):
        answers = calls.follow_output(info(address), FOLLOW)
        assert (await anext(answers)).begun_try == 1
        assert runner.keys == ["k" * 40]
        await answers.aclose()
        async with asyncio.timeout(STEP):
            await runner.stream_ended.wait()
        assert runner.open_streams == 0
        await calls.close()


async def test_a_stream_of_output_ends_when_its_runner_is_gone() -> None:
    calls = RunnerCalls()
    async with runner_at() as (_, address):
        answers = calls.follow_output(info(address), FOLLOW)
        await anext(answers)
        next_answer = asyncio.ensure_future(anext(answers))
        await asyncio.sleep(0)
        await calls.keep([])
        with pytest.raises(UnavailableError) as raised:
            async with asyncio.timeout(STEP):
                await next_answer
        assert raised.value.reason == "RUNNER_GONE"
        await calls.close()


async def test_a_stream_of_output_from_a_runner_that_cannot_be_reached_fails() -> None:
    calls = RunnerCalls()
    async with runner_at() as (_, address):
        pass
    with pytest.raises(UnavailableError):
        async with asyncio.timeout(STEP):
            await anext(calls.follow_output(info(address), FOLLOW))
    await calls.close()


async def test_a_stream_of_places_carries_the_key_and_what_is_wanted() -> None:
    calls = RunnerCalls(call_metadata=with_key)
    async with runner_at() as (runner, address):
        async with asyncio.timeout(STEP):
            assert [places async for places in calls.watch_capacity(info(address), 3)] == [3]
            with pytest.raises(FailedPreconditionError) as raised:
                await anext(calls.watch_capacity(info(address, OTHER_ID), 3))
        assert raised.value.reason == "OTHER_RUNNER"
        assert runner.keys == ["k" * 40] * 2
        await calls.close()


async def test_a_runner_of_an_earlier_version_does_not_know_the_stream_of_places() -> None:
    calls = RunnerCalls()
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(ERROR_CLASSES[Status.UNIMPLEMENTED]):
        async with asyncio.timeout(STEP):
            await anext(calls.watch_capacity(info(f"127.0.0.1:{port}"), 1))
    await calls.close()
    await server.stop(None)


async def test_the_key_is_not_sent_for_places_in_plain_text_to_other_machines() -> None:
    with pytest.raises(FailedPreconditionError) as raised:
        await anext(RunnerCalls(call_metadata=with_key).watch_capacity(info("10.0.0.66:1"), 1))
    assert raised.value.reason == "NEEDS_TLS"
