"""Users' gRPC messages are limited like HTTP bodies; those of other servers are not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme

from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest, CreateResponse, FindRequest, FindResponse
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from spincycle_grpc.v1.runner_reports_pb2 import RecordLogRequest, RecordLogResponse
from spincycle_grpc.v1.runner_reports_pb2_grpc import RunnerReportsStub
from spincycle_server.large_work import LARGE, run_large
from spincycle_server.rpc import CallContext, InputLimits
from spincycle_server.rpc.request_messages import MAX_WITHOUT_BODY
from tests.limits import ANSWER, STEP
from tests.rpc.servers import REQUEST_MANAGER, RUNNER_REPORTS, rpc_error, serving

LIMITS = InputLimits.of(max_body=200_000, max_bodies=400_000, max_values=20_000)


class Servicer:
    """Answers the calls of these tests."""

    def __getattr__(self, _: str) -> Callable[..., Any]:
        return self._refuse

    async def _refuse(self, *_: object) -> None:
        raise NotImplementedError

    async def Create(self, request: CreateRequest, context: CallContext) -> CreateResponse:
        return CreateResponse()

    async def Find(self, request: FindRequest, context: CallContext) -> FindResponse:
        return FindResponse()

    async def RecordLog(self, request: RecordLogRequest, context: CallContext) -> RecordLogResponse:
        return RecordLogResponse()


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    error = await rpc_error(call)
    return error.code(), error.details() or ""


async def test_a_message_over_the_size_limit_is_refused() -> None:
    async with (
        serving(REQUEST_MANAGER, Servicer(), limits=LIMITS) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = RequestManagerStub(channel)
        request = CreateRequest()
        request.args["a"] = "x" * (LIMITS.max_body - 20)
        await stub.Create(request, timeout=ANSWER)
        request.args["b"] = "x" * 20
        code, details = await refusal(stub.Create(request, timeout=ANSWER))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert str(LIMITS.max_body) in details
        find = FindRequest()
        find.filter.user = "x" * (MAX_WITHOUT_BODY + 1)
        code, details = await refusal(stub.Find(find, timeout=ANSWER))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert str(MAX_WITHOUT_BODY) in details


@pytest.mark.parametrize("max_values", [100, LIMITS.max_values])
async def test_a_message_with_too_many_values_is_refused(max_values: int) -> None:
    limits = InputLimits.of(max_body=200_000, max_bodies=1, max_values=max_values)
    async with (
        serving(REQUEST_MANAGER, Servicer(), limits=limits) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = RequestManagerStub(channel)
        for count in (max_values - 10, max_values + 1):
            request = CreateRequest(args=to_struct({"a": [False] * count}))
            call = stub.Create(request, timeout=ANSWER)
            if count < max_values:
                await call
                continue
            code, details = await refusal(call)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert str(max_values) in details


async def test_messages_of_other_servers_have_no_such_limits() -> None:
    async with (
        serving(RUNNER_REPORTS, Servicer(), limits=LIMITS) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = RunnerReportsStub(channel)
        request = RecordLogRequest()
        request.entry.stdout = "x" * (2 * LIMITS.max_body)
        await stub.RecordLog(request, timeout=ANSWER)


async def test_large_messages_are_parsed_in_the_thread_and_need_room() -> None:
    may_end = threading.Event()
    large = CreateRequest(type="x" * LARGE)
    limits = InputLimits.of(max_body=LARGE + 10, max_bodies=1, max_values=1_000_000)
    async with (
        serving(REQUEST_MANAGER, Servicer(), limits=limits) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
        asyncio.timeout(STEP),
    ):
        stub: Any = RequestManagerStub(channel)
        blocker = asyncio.create_task(run_large(may_end.wait))
        calls = [asyncio.ensure_future(stub.Create(large, timeout=ANSWER)) for _ in range(3)]
        try:
            (refused,), waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            await stub.Create(CreateRequest(type="x" * 1000), timeout=ANSWER)
            assert len(waiting) == 2
        finally:
            may_end.set()
        code, details = await refusal(refused)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(2 * (LARGE + 10)) in details
        await blocker
        await asyncio.gather(*waiting)


async def test_a_connection_has_a_limit_of_concurrent_calls() -> None:
    servicer = Waiting()
    async with (
        serving(REQUEST_MANAGER, servicer, max_streams=3) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
        grpc.aio.insecure_channel(address, (("grpc.use_local_subchannel_pool", 1),)) as other,
        asyncio.timeout(STEP),
    ):
        stub: Any = RequestManagerStub(channel)
        calls = [asyncio.ensure_future(stub.Create(CreateRequest(), timeout=ANSWER)) for _ in range(4)]
        for _ in range(3):
            await servicer.entered.acquire()
        other_stub: Any = RequestManagerStub(other)
        await other_stub.Find(FindRequest(), timeout=ANSWER)  # It overtakes the fourth call.
        assert servicer.entered.locked()
        servicer.may_end.set()
        await asyncio.gather(*calls)


class Waiting(Servicer):
    """Answers creates when the test sets `may_end`."""

    def __init__(self) -> None:
        self.entered = asyncio.Semaphore(0)
        self.may_end = asyncio.Event()

    async def Create(self, request: CreateRequest, context: CallContext) -> CreateResponse:
        self.entered.release()
        await self.may_end.wait()
        return CreateResponse()


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("opening", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_connection_that_does_not_complete_its_handshake_is_closed(
    opening: bytes, is_tls: bool
) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    pair = (certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())
    credentials = grpc.ssl_server_credentials([pair]) if is_tls else None
    async with (
        serving(REQUEST_MANAGER, Servicer(), handshake_timeout=0.5, credentials=credentials) as (_, address),
        asyncio.timeout(STEP),
    ):
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(opening)
        await reader.read()
        writer.close()
