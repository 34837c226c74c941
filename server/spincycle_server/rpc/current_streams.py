"""Ends open streams whose credential has expired or was revoked, and all of them when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

from spincycle_grpc.errors import UnauthenticatedError
from spincycle_server.identity import Identity
from spincycle_server.rpc.gate import Gate

STREAM_CHECK_INTERVAL = 2.0
"""Seconds between checks whether the credential of an open stream is still valid."""

_Answer = TypeVar("_Answer")


async def while_current(
    answers: AsyncIterator[_Answer], identity: Identity, gate: Gate | None = None
) -> AsyncGenerator[_Answer, None]:
    """Yields the answers of a stream while the caller's credential is valid and the gate is open.

    Args:
        answers: The answers. An async generator is closed when the stream ends.
        identity: The caller.
        gate: Is closed when the server shuts down; None if the stream ends otherwise then.

    Raises:
        UnauthenticatedError: The credential is no longer valid. Reason: CREDENTIALS_ENDED.
        UnavailableError: The server is shutting down. Reason: SHUTTING_DOWN.
    """
    closing = [] if gate is None else [asyncio.ensure_future(gate.wait_closed())]
    waiting: asyncio.Future[_Answer] | None = None
    try:
        while True:
            waiting = asyncio.ensure_future(_next(answers))
            while not waiting.done():
                await asyncio.wait(
                    {waiting, *closing},
                    timeout=STREAM_CHECK_INTERVAL,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if gate is not None:
                    gate.check_open()
                check_current(identity)
            try:
                answer = waiting.result()
            except StopAsyncIteration:
                return
            yield answer
    finally:
        for wait in closing:
            wait.cancel()
        if waiting is not None and not waiting.done():
            waiting.cancel()
            await asyncio.wait({waiting})
        if isinstance(answers, AsyncGenerator):
            await answers.aclose()


async def requests_while_current(
    requests: AsyncIterator[_Answer], identity: Identity
) -> AsyncIterator[_Answer]:
    """Yields the requests of a stream. Each one is refused if the caller's credential is no longer valid.

    This costs less than `while_current`, for streams whose clients send regularly.

    Raises:
        UnauthenticatedError: As for `while_current`.
    """
    async for request in requests:
        check_current(identity)
        yield request


async def _next(answers: AsyncIterator[_Answer]) -> _Answer:
    return await anext(answers)


def check_current(identity: Identity) -> None:
    """Checks that a caller's credential is still valid.

    Raises:
        UnauthenticatedError: It is not. Reason: CREDENTIALS_ENDED.
    """
    if not identity.is_current():
        raise UnauthenticatedError(
            "the credential of this stream has expired or was revoked: open the stream with a new one",
            reason="CREDENTIALS_ENDED",
        )
