"""Followers of the tries of a chain."""

from __future__ import annotations

import asyncio

import pytest

from spincycle_grpc.output import STDOUT
from spincycle_grpc.v1.output_pb2 import OUTPUT_STREAM_STDERR, OUTPUT_STREAM_STDOUT
from spincycle_server.job_runner import chain_outputs as module
from spincycle_server.job_runner.chain_outputs import ChainOutputs, OutputEvent
from spincycle_server.job_runner.follow_pace import FollowPace
from spincycle_server.job_runner.try_output import HeldOutput, TryOutput
from tests.limits import STEP


class Chain:
    """The outputs of a chain with one job."""

    def __init__(self) -> None:
        self.tries = 0
        self.pace = FollowPace()
        self.outputs = ChainOutputs(lambda job_id: self.tries, self.pace)
        self.output = TryOutput(1000, HeldOutput())

    def begin(self) -> None:
        self.tries += 1
        self.output = TryOutput(1000, HeldOutput())
        self.outputs.begin("aaaa", self.tries, self.output)

    async def follow(self, number: int) -> list[OutputEvent]:
        offsets = {OUTPUT_STREAM_STDOUT: 0, OUTPUT_STREAM_STDERR: 0}
        async with asyncio.timeout(STEP):
            return [event async for event in self.outputs.follow("aaaa", number, offsets)]

    async def following(self, number: int) -> asyncio.Task[list[OutputEvent]]:
        """Starts to follow, and returns when the follower waits."""
        task = asyncio.create_task(self.follow(number))
        await asyncio.sleep(0)
        return task


async def test_a_follower_waits_for_its_try_and_ends_when_the_job_log_has_it() -> None:
    chain, queue = Chain(), asyncio.Queue[object]()

    async def follow() -> None:
        offsets = {OUTPUT_STREAM_STDOUT: 0, OUTPUT_STREAM_STDERR: 0}
        async for event in chain.outputs.follow("aaaa", 2, offsets):
            queue.put_nowait(getattr(event, "text", event))
        queue.put_nowait("end")

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    chain.begin()
    chain.output.write(STDOUT, b"first")
    chain.outputs.recorded("aaaa", 1)
    chain.begin()
    chain.output.write(STDOUT, b"second")
    chain.outputs.recorded("aaaa", 1)  # An older try changes nothing.
    assert [await queue.get(), await queue.get()] == [2, "second"]
    chain.outputs.recorded("aaaa", 2)
    assert await queue.get() == "end"
    await task


async def test_try_0_is_the_running_one_and_nothing_is_awaited() -> None:
    chain = Chain()
    assert await chain.follow(0) == []
    chain.begin()
    task = await chain.following(0)
    await asyncio.sleep(0)
    chain.outputs.recorded("aaaa", 1)
    assert await task == [1]


async def test_a_try_that_has_ended_before_has_no_event() -> None:
    chain = Chain()
    chain.begin()
    chain.begin()
    assert await chain.follow(1) == []
    chain.outputs.recorded("aaaa", 2)
    assert await chain.follow(2) == []


async def test_all_followers_end_when_the_chain_leaves_the_runner() -> None:
    chain = Chain()
    chain.begin()
    tasks = [await chain.following(1), await chain.following(2)]
    chain.outputs.close()
    assert [await task for task in tasks] == [[1], []]
    assert await chain.follow(3) == []


async def test_a_follower_gets_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)
    chain = Chain()
    events = chain.outputs.follow("aaaa", 1, {OUTPUT_STREAM_STDOUT: 0, OUTPUT_STREAM_STDERR: 0})
    assert await anext(events) is None
    chain.begin()
    assert [await anext(events), await anext(events)] == [1, None]
    chain.output.write(STDOUT, b"text")
    assert await anext(events) is not None
    assert chain.pace.busy == 1
    await events.aclose()
    assert not chain.output._news
    assert chain.pace.busy == 0
