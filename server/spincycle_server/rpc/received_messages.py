"""Receives the requests of unary gRPC calls, within limits of time and memory."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from spincycle_grpc.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
    SpinCycleError,
)
from spincycle_server.rpc.body_budget import BodyShare
from spincycle_server.rpc.input_limits import InputLimits

MESSAGE_TIMEOUT = 60.0
"""Seconds within which the request of a unary call must arrive, after its caller is identified."""

SLOW_AFTER = 1.0
"""Seconds after which a request that has not arrived counts as one of the largest size.

gRPC does not say how much of a message it has received. Nearly all requests arrive with their call.
"""

_GRACE = 0.05
"""Seconds for requests that arrived while the event loop was busy."""


async def received(context: grpc.aio.ServicerContext[Any, Any], limits: InputLimits | None) -> bytes:
    """Returns the request of a call.

    Args:
        context: The call.
        limits: The limits of users' requests; None for the call of another server.

    Raises:
        DeadlineExceededError: It takes too long. Reason: REQUEST_TOO_SLOW.
        ResourceExhaustedError: Too many requests arrive slowly. Reason: TOO_MANY_BODIES.
        InvalidArgumentError: The call has no request. Reason: BAD_MESSAGE.
    """
    arrival = _Arrival(limits)
    try:
        data = await context.read()
    except asyncio.CancelledError:
        if arrival.refusal is None:
            raise
        arrival.task.uncancel()
        raise arrival.refusal from None
    finally:
        arrival.end()
    if not isinstance(data, bytes):
        raise InvalidArgumentError("the call has no request: send one", reason="BAD_MESSAGE")
    return data


class _Arrival:
    """Watches one request that arrives. Nearly always, it costs a timer that is cancelled.

    Attributes:
        task: The task that receives the request. It is cancelled if the request is refused.
        refusal: Why the request is refused; None if it is not.
    """

    __slots__ = ("_limits", "_loop", "_share", "_timer", "refusal", "task")

    def __init__(self, limits: InputLimits | None) -> None:
        self._loop = asyncio.get_running_loop()
        self.task: asyncio.Task[Any] = asyncio.current_task(self._loop)  # type: ignore[assignment]
        self.refusal: SpinCycleError | None = None
        self._limits = limits
        self._share: BodyShare | None = None
        self._timer = self._loop.call_later(SLOW_AFTER, self._notice)

    def end(self) -> None:
        """Stops watching."""
        self._timer.cancel()
        if self._share is not None:
            self._share.hold(0)

    def _notice(self) -> None:
        self._timer = self._loop.call_later(_GRACE, self._count)

    def _count(self) -> None:
        if self._limits is not None:
            self._share = self._limits.bodies.share()
            try:
                self._share.hold(self._limits.max_body)
            except ResourceExhaustedError as error:
                self._refuse(error)
                return
        self._timer = self._loop.call_later(max(0.0, MESSAGE_TIMEOUT - SLOW_AFTER - _GRACE), self._expire)

    def _expire(self) -> None:
        self._refuse(
            DeadlineExceededError(
                f"the request did not arrive within {MESSAGE_TIMEOUT:g} s: use a faster connection",
                reason="REQUEST_TOO_SLOW",
            )
        )

    def _refuse(self, error: SpinCycleError) -> None:
        self.refusal = error
        self.task.cancel()
