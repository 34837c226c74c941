"""Chains on their way to one runner: what waits while one message is under way goes together in the next.

So the cost of a call is shared by as many chains as there is work, and a single chain waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from spincycle_grpc.errors import ERROR_CLASSES, SpinCycleError, Status, UnavailableError
from spincycle_grpc.v1.job_runner_pb2 import JobChainStart, StartJobChainsResponse
from spincycle_server.request_manager.chain_messages import start_request

MAX_CHAINS = 500
"""Chains in one message."""

MAX_BYTES = 8 * 1024 * 1024
"""Bytes of chains in one message, unless a single one is larger."""


@dataclass(slots=True)
class _Waiting:
    chain: bytes
    outcome: asyncio.Future[None]


class ChainSender:
    """Sends chains to one runner, one message at a time. Its users bound how many wait.

    Args:
        runner_id: The runner.
        call: Calls StartJobChains by a serialized request, or raises the SpinCycleError that it failed with.
    """

    def __init__(
        self,
        runner_id: str,
        call: Callable[[bytes], Awaitable[StartJobChainsResponse]],
    ) -> None:
        self._runner_id = runner_id
        self._call = call
        self._waiting: deque[_Waiting] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def send(self, chain: bytes) -> None:
        """Returns when the runner has the chain, a serialized AssignedJobChain. Safe to repeat.

        Raises:
            SpinCycleError: As the contracts of NewJobChain and ResumeJobChain say, or the runner cannot
                be reached.
        """
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(chain, outcome))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        await outcome

    async def close(self) -> None:
        """Gives up what is on its way."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending})

    async def _send_all(self) -> None:
        batch: list[_Waiting] = []
        try:
            while batch := self._next_batch():
                await self._send(batch)
        finally:
            self._sending = None
            gone = UnavailableError(f"job runner {self._runner_id} is gone: try again", reason="RUNNER_GONE")
            for waiting in (*batch, *self._waiting):
                _settle(waiting.outcome, gone)
            self._waiting.clear()

    def _next_batch(self) -> list[_Waiting]:
        """Takes out what goes into the next message; those whose senders gave up are left out."""
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < MAX_CHAINS:
            if batch and size + len(self._waiting[0].chain) > MAX_BYTES:
                break
            waiting = self._waiting.popleft()
            if not waiting.outcome.done():
                batch.append(waiting)
                size += len(waiting.chain)
        return batch

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        request = start_request(self._runner_id, [waiting.chain for waiting in batch])
        try:
            answer = await self._call(request)
        except SpinCycleError as error:
            for waiting in batch:
                _settle(waiting.outcome, error)
            return
        for waiting, start in zip(batch, answer.starts, strict=True):
            _settle(waiting.outcome, _error_of(start))


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
