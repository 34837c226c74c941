"""The sender of chains to one runner. Chains that arrive while a message is in flight share the next message.

So under load many chains share the cost of a call, and a single chain is sent at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from spincycle_grpc.channels import MAX_MESSAGE_BYTES
from spincycle_grpc.errors import (
    ERROR_CLASSES,
    InvalidArgumentError,
    SpinCycleError,
    Status,
    UnavailableError,
)
from spincycle_grpc.v1.job_runner_pb2 import JobChainStart, StartJobChainsResponse
from spincycle_server.request_manager.chain_messages import start_request

MAX_CHAINS = 500
"""The maximum number of chains in one message."""

MAX_BYTES = 8 * 1024 * 1024
"""The maximum size of one message in bytes. A larger chain is sent alone."""


MAX_CHAIN = MAX_MESSAGE_BYTES - 1024
"""The maximum size of one chain in bytes. Only the data that jobs add to a resumed chain can exceed it."""


@dataclass(slots=True)
class _QueuedChain:
    chain: bytes
    outcome: asyncio.Future[None]


class ChainSender:
    """Sends chains to one runner, one message at a time. Callers limit how many chains wait.

    Args:
        runner_id: The runner.
        call: Calls StartJobChains with a serialized request. Raises a SpinCycleError if the call fails.
    """

    def __init__(
        self,
        runner_id: str,
        call: Callable[[bytes], Awaitable[StartJobChainsResponse]],
    ) -> None:
        self._runner_id = runner_id
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_QueuedChain] = deque()
        self._sending: asyncio.Task[None] | None = None

    def send(self, chain: bytes) -> asyncio.Future[None]:
        """Sends a chain. Safe to repeat.

        Args:
            chain: The serialized AssignedJobChain.

        Returns:
            A future that is done when the runner has the chain. Its error is an InvalidArgumentError if the
            chain is too large for a message (CHAIN_TOO_LARGE), an error of NewJobChain or ResumeJobChain, or
            that of a runner that cannot be reached. If it is cancelled in time, the chain is not sent.
        """
        outcome: asyncio.Future[None] = self._loop.create_future()
        if len(chain) > MAX_CHAIN:
            outcome.set_exception(
                InvalidArgumentError(
                    f"the job chain has {len(chain)} bytes with the data of its jobs: at most {MAX_CHAIN} "
                    "can be sent to a runner",
                    reason="CHAIN_TOO_LARGE",
                )
            )
            return outcome
        self._queue.append(_QueuedChain(chain, outcome))
        if self._sending is None:
            self._sending = self._loop.create_task(self._send_all())
        return outcome

    async def close(self) -> None:
        """Cancels the call in flight. All chains that were not answered fail with RUNNER_GONE."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending})

    async def _send_all(self) -> None:
        batch: list[_QueuedChain] = []
        try:
            while batch := self._next_batch():
                await self._send(batch)
        finally:
            self._sending = None
            gone = UnavailableError(f"job runner {self._runner_id} is gone: try again", reason="RUNNER_GONE")
            for queued in (*batch, *self._queue):
                _settle(queued.outcome, gone)
            self._queue.clear()

    def _next_batch(self) -> list[_QueuedChain]:
        """Takes the chains of the next message. Chains whose callers have gone are dropped."""
        batch: list[_QueuedChain] = []
        size = 0
        while self._queue and len(batch) < MAX_CHAINS:
            if batch and size + len(self._queue[0].chain) > MAX_BYTES:
                break
            queued = self._queue.popleft()
            if not queued.outcome.done():
                batch.append(queued)
                size += len(queued.chain)
        return batch

    async def _send(self, batch: Sequence[_QueuedChain]) -> None:
        request = start_request(self._runner_id, [queued.chain for queued in batch])
        try:
            answer = await self._call(request)
        except SpinCycleError as error:
            for queued in batch:
                _settle(queued.outcome, error)
            return
        for queued, start in zip(batch, answer.starts, strict=True):
            _settle(queued.outcome, _error_of(start))


def _settle(outcome: asyncio.Future[None], error: SpinCycleError | None) -> None:
    if outcome.done():
        return
    if error is None:
        outcome.set_result(None)
    else:
        outcome.set_exception(error)


def _error_of(start: JobChainStart) -> SpinCycleError | None:
    if not start.HasField("error"):
        return None
    error = start.error
    return ERROR_CLASSES[Status.from_grpc_code(error.code)](error.message, reason=error.reason)
