"""Chains that share a message to a runner: each has its own outcome."""

from __future__ import annotations

import asyncio

import pytest

from spincycle_grpc.errors import InvalidArgumentError, ResourceExhaustedError, UnavailableError
from spincycle_grpc.v1.job_pb2 import Job, JobChain
from spincycle_grpc.v1.job_runner_pb2 import (
    JobChainStart,
    JobChainStartError,
    StartJobChainsRequest,
    StartJobChainsResponse,
)
from spincycle_server.request_manager.chain_messages import new_chain
from spincycle_server.request_manager.chain_sender import MAX_BYTES, MAX_CHAIN, MAX_CHAINS, ChainSender


def a_chain(name: str, size: int = 0) -> bytes:
    chain = JobChain(request_id=name)
    if size:
        chain.jobs["0000"].CopyFrom(Job(id="0000", bytes=b"x" * size))
    return new_chain(1, chain)


class Runner:
    """Answers each message when `may_answer` is set, and refuses the chains of the given requests."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.messages: list[list[str]] = []
        self.may_answer = asyncio.Event()
        self.error: UnavailableError | None = None

    async def call(self, data: bytes) -> StartJobChainsResponse:
        request = StartJobChainsRequest.FromString(data)
        assert request.runner_id == "r1"
        names = [one.job_chain.request_id for one in request.chains]
        self.messages.append(names)
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        full = JobChainStartError(code=8, reason="TOO_MANY_CHAINS", message="full")
        return StartJobChainsResponse(
            starts=[JobChainStart(error=full if name in self.refused else None) for name in names]
        )


async def sent(sender: ChainSender, *chains: bytes) -> list[asyncio.Future[None]]:
    outcomes = [sender.send(chain) for chain in chains]
    await asyncio.sleep(0)  # The first message is on its way now.
    return outcomes


async def test_a_chain_that_is_larger_than_a_message_is_refused() -> None:
    """Otherwise gRPC would refuse it each time that it is sent, for ever."""
    runner = Runner()
    sender = ChainSender("r1", runner.call)
    with pytest.raises(InvalidArgumentError, match="with the data of its jobs") as caught:
        await sender.send(bytes(MAX_CHAIN + 1))
    assert caught.value.reason == "CHAIN_TOO_LARGE"
    assert not runner.messages


async def test_waiting_chains_share_a_message_and_have_their_own_outcomes() -> None:
    runner = Runner("c")
    sender = ChainSender("r1", runner.call)
    tasks = await sent(sender, a_chain("a"), a_chain("b"))
    await asyncio.sleep(0)
    tasks += await sent(sender, a_chain("c"), a_chain("d"))
    runner.may_answer.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert runner.messages == [["a", "b"], ["c", "d"]]
    assert outcomes[:2] == [None, None]
    assert outcomes[3] is None
    assert isinstance(outcomes[2], ResourceExhaustedError)
    assert (outcomes[2].reason, outcomes[2].message) == ("TOO_MANY_CHAINS", "full")


async def test_a_message_has_a_limit_of_chains_and_of_bytes() -> None:
    runner = Runner()
    runner.may_answer.set()
    sender = ChainSender("r1", runner.call)
    await asyncio.gather(*await sent(sender, *(a_chain(str(number)) for number in range(MAX_CHAINS + 1))))
    assert [len(message) for message in runner.messages] == [MAX_CHAINS, 1]
    runner.messages.clear()
    large = [a_chain(name, MAX_BYTES * 2 // 3) for name in "ab"]
    await asyncio.gather(*await sent(sender, *large, a_chain("c"), a_chain("d", MAX_BYTES * 2)))
    assert runner.messages == [["a"], ["b", "c"], ["d"]]


async def test_a_failed_call_fails_its_own_chains_only() -> None:
    runner = Runner()
    runner.error = UnavailableError("cannot reach it")
    runner.may_answer.set()
    sender = ChainSender("r1", runner.call)
    for failed in await asyncio.gather(
        *await sent(sender, a_chain("a"), a_chain("b")), return_exceptions=True
    ):
        assert failed is runner.error
    runner.error = None
    await sender.send(a_chain("a"))


async def test_a_chain_whose_caller_has_gone_is_dropped() -> None:
    runner = Runner()
    sender = ChainSender("r1", runner.call)
    first, second, third = await sent(sender, a_chain("a"), a_chain("b"), a_chain("c"))
    await asyncio.sleep(0)
    later = await sent(sender, a_chain("d"), a_chain("e"))
    later[0].cancel()
    await asyncio.sleep(0)
    runner.may_answer.set()
    await asyncio.gather(first, second, third, later[1])
    assert runner.messages == [["a", "b", "c"], ["e"]]


async def test_close_fails_all_chains_with_runner_gone() -> None:
    runner = Runner()
    sender = ChainSender("r1", runner.call)
    tasks = await sent(sender, a_chain("a"))
    await asyncio.sleep(0)
    tasks += await sent(sender, a_chain("b"))
    await sender.close()
    for task in tasks:
        with pytest.raises(UnavailableError) as caught:
            await task
        assert caught.value.reason == "RUNNER_GONE"
