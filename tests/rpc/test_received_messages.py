"""The request of a unary call arrives within limits of time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from spincycle_grpc.rpc_errors import error_from_rpc
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest, CreateResponse
from spincycle_server.rpc import CallContext, InputLimits, received_messages
from spincycle_server.rpc.body_budget import BodyBudget
from tests.limits import ANSWER
from tests.rpc.servers import REQUEST_MANAGER, rpc_error, serving

PATH = f"/{REQUEST_MANAGER.full_name}/Create"
REQUEST = CreateRequest(type="nap").SerializeToString()


class Manager:
    def __getattr__(self, _: str) -> None:
        return None

    async def Create(self, request: CreateRequest, context: CallContext) -> CreateResponse:
        response = CreateResponse()
        response.request.id = request.type
        return response


@pytest.fixture
async def create() -> AsyncIterator[Callable[..., Any]]:
    """Calls Create as a stream, of a server with room for two slow requests."""
    limits = InputLimits(max_body=100, bodies=BodyBudget(200))
    async with (
        serving(REQUEST_MANAGER, Manager(), limits=limits) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield channel.stream_unary(PATH)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    return error_from_rpc(error, "").reason


async def test_a_call_without_a_request_is_invalid(create: Callable[..., Any]) -> None:
    call = create(timeout=ANSWER)
    await call.done_writing()
    assert reason_of(await rpc_error(call)) == "BAD_MESSAGE"


async def test_a_request_that_does_not_arrive_in_time_is_refused(
    create: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received_messages, "SLOW_AFTER", 0.1)
    monkeypatch.setattr(received_messages, "MESSAGE_TIMEOUT", 0.2)
    assert reason_of(await rpc_error(create(timeout=ANSWER))) == "REQUEST_TOO_SLOW"


async def test_slow_requests_beyond_the_limit_are_refused_and_the_others_are_answered(
    create: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received_messages, "SLOW_AFTER", 0.1)
    for _ in range(2):  # The room of the first round is free again in the second one.
        calls = [create(timeout=ANSWER) for _ in range(3)]
        tasks = [asyncio.ensure_future(call.code()) for call in calls]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = [call for call, task in zip(calls, tasks, strict=True) if task.done()]
        assert reason_of(await rpc_error(refused)) == "TOO_MANY_BODIES"
        for call in calls:
            if call is not refused:
                await call.write(REQUEST)
                await call.done_writing()
                assert CreateResponse.FromString(await call).request.id == "nap"


async def test_a_request_that_arrives_at_once_needs_no_room(
    create: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received_messages, "SLOW_AFTER", 0.1)
    slow = [create(timeout=ANSWER) for _ in range(3)]
    await asyncio.wait(
        [asyncio.ensure_future(call.code()) for call in slow], return_when=asyncio.FIRST_COMPLETED
    )
    call = create(timeout=ANSWER)
    await call.write(REQUEST)
    await call.done_writing()
    assert CreateResponse.FromString(await call).request.id == "nap"
