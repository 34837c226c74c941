"""Both clients: `follow_output` yields the output of a try, and continues where a stream breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from spincycle_grpc import AsyncClient, Client, errors
from spincycle_grpc.v1.output_pb2 import OUTPUT_STREAM_STDOUT, OutputEnd, OutputText
from spincycle_grpc.v1.request_manager_pb2 import FollowOutputRequest, FollowOutputResponse
from spincycle_grpc.watching import ResumedStream
from tests.fake_manager import REQUEST_ID, FakeManager, serving

Kind = type[Client] | type[AsyncClient]
both = pytest.mark.parametrize("kind", [Client, AsyncClient])

ONE = FollowOutputResponse(cursor="1", text=OutputText(stream=OUTPUT_STREAM_STDOUT, text="one\n"))
TWO = FollowOutputResponse(cursor="2", text=OutputText(stream=OUTPUT_STREAM_STDOUT, offset=4, text="two\n"))
END = FollowOutputResponse(cursor="2", end=OutputEnd(exit=1))


@pytest.fixture
def manager() -> FakeManager:
    return FakeManager()


@contextlib.asynccontextmanager
async def client_of(kind: Kind, manager: FakeManager) -> AsyncIterator[Client | AsyncClient]:
    with serving(manager) as address:
        client = kind(address)
        try:
            yield client
        finally:
            if isinstance(client, Client):
                client.close()
            else:
                await client.close()


async def followed(client: Client | AsyncClient, **options: Any) -> list[FollowOutputResponse]:
    if isinstance(client, AsyncClient):
        return [message async for message in client.follow_output(REQUEST_ID, "aaaa", **options)]
    return await asyncio.to_thread(lambda: list(client.follow_output(REQUEST_ID, "aaaa", **options)))


@both
async def test_it_yields_the_output_and_the_end(kind: Kind, manager: FakeManager) -> None:
    manager.outputs["aaaa"] = [[ONE, TWO, END]]
    async with client_of(kind, manager) as client:
        assert await followed(client, try_number=3, stdout_offset=4, stderr_offset=5) == [ONE, TWO, END]
    wanted = FollowOutputRequest(request_id=REQUEST_ID, job_id="aaaa", stdout_offset=4, stderr_offset=5)
    setattr(wanted, "try", 3)
    assert manager.requests("FollowOutput") == [wanted]


@both
async def test_it_continues_after_the_last_message_when_a_stream_breaks(
    kind: Kind, manager: FakeManager
) -> None:
    manager.outputs["aaaa"] = [[ONE], [], [TWO, END]]
    async with client_of(kind, manager) as client:
        assert await followed(client) == [ONE, TWO, END]
    assert [request.cursor for request in manager.requests("FollowOutput")] == ["", "1", "1"]


@both
async def test_other_errors_end_it(kind: Kind, manager: FakeManager) -> None:
    manager.failures["FollowOutput"] = [errors.NotFoundError("no such job", reason="JOB_NOT_FOUND")]
    async with client_of(kind, manager) as client:
        with pytest.raises(errors.NotFoundError) as raised:
            await followed(client, cursor="9")
    assert raised.value.reason == "JOB_NOT_FOUND"
    assert [request.cursor for request in manager.requests("FollowOutput")] == ["9"]


def test_the_error_of_a_passed_deadline_names_the_job() -> None:
    request = FollowOutputRequest(request_id=REQUEST_ID, job_id="aaaa")
    stream: ResumedStream[FollowOutputResponse] = ResumedStream("FollowOutput", request, 1e-9, 30)
    stream.add(ONE)
    with pytest.raises(errors.DeadlineExceededError, match="the try of job aaaa has not ended") as raised:
        stream.pause_after(errors.UnavailableError("shutting down", reason="SHUTTING_DOWN"))
    assert (raised.value.reason, raised.value.request_id) == ("WAITED_TOO_LONG", REQUEST_ID)
