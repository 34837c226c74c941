"""Receives the requests of unary gRPC calls, within limits of time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc.aio

from spincycle_grpc.errors import DeadlineExceededError, InvalidArgumentError, ResourceExhaustedError
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
    try:
        async with asyncio.timeout(MESSAGE_TIMEOUT) as limit:
            if limits is None:
                data = await context.read()
            else:
                with _counted_if_slow(limits, limit):
                    data = await context.read()
    except TimeoutError as error:
        raise DeadlineExceededError(
            f"the request did not arrive within {MESSAGE_TIMEOUT:g} s", reason="REQUEST_TOO_SLOW"
        ) from error
    if not isinstance(data, bytes):
        raise InvalidArgumentError("the call has no request: send one", reason="BAD_MESSAGE")
    return data


@contextmanager
def _counted_if_slow(limits: InputLimits, limit: asyncio.Timeout) -> Iterator[None]:
    """Counts a request that arrives slowly, and ends the wait for it if there are too many."""
    loop = asyncio.get_running_loop()
    refusal: ResourceExhaustedError | None = None
    timer: asyncio.TimerHandle

    def notice() -> None:
        nonlocal timer
        timer = loop.call_later(_GRACE, count)

    def count() -> None:
        nonlocal refusal
        try:
            share.hold(limits.max_body)
        except ResourceExhaustedError as error:
            refusal = error
            limit.reschedule(loop.time())

    timer = loop.call_later(SLOW_AFTER, notice)
    with limits.bodies.share() as share:
        try:
            yield
        except asyncio.CancelledError:
            if refusal is None:
                raise
            raise refusal from None
        finally:
            timer.cancel()
