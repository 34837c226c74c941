"""A runner has one stream of reports, and a Request Manager has a limited number of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from spincycle_grpc.errors import DeadlineExceededError, FailedPreconditionError, ResourceExhaustedError
from spincycle_grpc.v1.runner_reports_pb2 import ReportRequest, RunnerInfo
from spincycle_server.request_manager import report_streams
from spincycle_server.request_manager.report_streams import ReportStreams
from tests.limits import STEP


async def reports(runner_id: str, *, ends: bool = False) -> AsyncIterator[ReportRequest]:
    """Yields the first message of a runner, and then nothing more, or the end."""
    yield ReportRequest(number=1, runner=RunnerInfo(runner_id=runner_id))
    if not ends:
        await asyncio.Event().wait()


async def silence() -> AsyncIterator[ReportRequest]:
    await asyncio.Event().wait()
    yield ReportRequest()


async def opened(streams: ReportStreams, runner_id: str) -> AsyncIterator[ReportRequest]:
    """Returns a stream whose first message was read."""
    stream = streams.messages(reports(runner_id))
    assert (await anext(stream)).runner.runner_id == runner_id
    return stream


@pytest.mark.parametrize("is_reading", [False, True])
async def test_a_newer_stream_of_a_runner_ends_the_older_one(is_reading: bool) -> None:
    streams = ReportStreams()
    async with asyncio.timeout(STEP):
        older = await opened(streams, "a")
        other = await opened(streams, "b")
        waiting = asyncio.ensure_future(anext(older)) if is_reading else None
        await asyncio.sleep(0)
        newer = await opened(streams, "a")
        with pytest.raises(FailedPreconditionError) as caught:
            await (waiting or anext(older))
        assert caught.value.reason == "STREAM_SUPERSEDED"
        rest = [asyncio.ensure_future(anext(stream, None)) for stream in (newer, other)]
        await asyncio.sleep(0)
        streams.end()
        assert await asyncio.gather(*rest) == [None, None]


async def test_a_stream_that_is_superseded_when_the_server_shuts_down_ends_once() -> None:
    streams = ReportStreams()
    async with asyncio.timeout(STEP):
        older = await opened(streams, "a")
        waiting = asyncio.ensure_future(anext(older))
        await asyncio.sleep(0)
        newer = await opened(streams, "a")
        streams.end()  # before the older stream has noticed the newer one
        with pytest.raises(FailedPreconditionError) as caught:
            await waiting
        assert caught.value.reason == "STREAM_SUPERSEDED"
        assert await anext(newer, None) is None


async def test_a_stream_that_ended_does_not_end_the_next_one() -> None:
    streams = ReportStreams()
    async with asyncio.timeout(STEP):
        assert len([message async for message in streams.messages(reports("a", ends=True))]) == 1
        assert len([message async for message in streams.messages(reports("a", ends=True))]) == 1


async def test_streams_beyond_the_limit_are_refused_until_others_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_streams, "MAX_STREAMS", 2)
    streams = ReportStreams()
    async with asyncio.timeout(STEP):
        first = await opened(streams, "a")
        second = streams.messages(reports("b", ends=True))
        await anext(second)
        with pytest.raises(ResourceExhaustedError) as caught:
            await opened(streams, "c")
        assert caught.value.reason == "TOO_MANY_STREAMS"
        assert await anext(second, None) is None
        third = await opened(streams, "c")
        assert first is not third  # Both are still open: a stream that nobody holds would end.


async def test_a_stream_without_a_first_message_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_streams, "FIRST_MESSAGE_TIMEOUT", 0.01)
    streams = ReportStreams()
    async with asyncio.timeout(STEP):
        identified = await opened(streams, "a")
        with pytest.raises(DeadlineExceededError):
            await anext(streams.messages(silence()))
        rest = asyncio.ensure_future(anext(identified, None))
        await asyncio.sleep(0.05)
        assert not rest.done()
        streams.end()
        assert await rest is None
