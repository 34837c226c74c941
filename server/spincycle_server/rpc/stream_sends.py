"""Sends the messages of streams over gRPC, and fails the streams whose clients do not read."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import grpc.aio

from spincycle_grpc.errors import ResourceExhaustedError

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

SEND_TIMEOUT = 60.0
"""Seconds within which a client must make room for the next message of a stream. Then the call fails."""


class StreamSends:
    """The messages that are being sent. One timer limits all of them: nearly every message leaves at once."""

    def __init__(self) -> None:
        self._began: dict[asyncio.Task[Any], float] = {}  # in the order in which the sends began
        self._stalled: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def send(self, context: Context, data: bytes) -> None:
        """Sends a message of the stream that this task serves.

        Raises:
            ResourceExhaustedError: The client does not read. Reason: STREAM_NOT_READ.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (a coroutine of a stream runs in a task)
        loop = asyncio.get_running_loop()
        self._began[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(SEND_TIMEOUT, self._check)
        try:
            await context.write(data)
        except asyncio.CancelledError:
            # The caller may have cancelled the task too. Only the last cancellation is ours.
            if task not in self._stalled or task.uncancel():
                raise
            raise ResourceExhaustedError(
                f"the client read nothing for {SEND_TIMEOUT:g} s: open the stream again, from the last "
                "message",
                reason="STREAM_NOT_READ",
            ) from None
        finally:
            del self._began[task]
            self._stalled.discard(task)

    def _check(self) -> None:
        """Interrupts the sends that have lasted too long. Looks again when the next one may have."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, began in self._began.items():
            if now < began + SEND_TIMEOUT:
                self._timer = loop.call_at(began + SEND_TIMEOUT, self._check)
                break
            if task not in self._stalled:
                self._stalled.add(task)
                task.cancel()
