"""Ends open streams whose credential has expired or was revoked, and all of them when the server stops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

from spincycle_grpc.errors import SpinCycleError, UnauthenticatedError
from spincycle_server.identity import Identity
from spincycle_server.rpc.gate import Gate

STREAM_CHECK_INTERVAL = 2.0
"""Seconds between checks whether the credential of an open stream is still valid."""

_Answer = TypeVar("_Answer")


class OpenStreams:
    """The open streams of a service. One task checks all of them, because there may be thousands.

    Args:
        gate: Is closed when the server shuts down. Then all streams end.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._open: set[_OpenStream] = set()
        self._checking: asyncio.Task[None] | None = None

    async def while_current(
        self, answers: AsyncIterator[_Answer], identity: Identity
    ) -> AsyncGenerator[_Answer, None]:
        """Yields the answers of a stream while the caller's credential is valid and the gate is open.

        Args:
            answers: The answers. An async generator is closed when the stream ends.
            identity: The caller.

        Raises:
            UnauthenticatedError: The credential is no longer valid. Reason: CREDENTIALS_ENDED.
            UnavailableError: The server is shutting down. Reason: SHUTTING_DOWN.
        """
        stream = _OpenStream(identity)
        self._open.add(stream)
        if self._checking is None:
            self._checking = asyncio.create_task(self._check())
        try:
            while (answer := await stream.next(answers)) is not None:
                yield answer
        finally:
            self._open.discard(stream)
            if isinstance(answers, AsyncGenerator):
                await answers.aclose()

    async def _check(self) -> None:
        """Ends streams that must end, until there are no more."""
        while self._open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STREAM_CHECK_INTERVAL):
                    await self._gate.wait_closed()
            for stream in tuple(self._open):
                stream.check(self._gate)
            if self._gate.is_closed:
                break  # No stream can begin any longer.
        self._checking = None


class _OpenStream:
    """One stream. Its error interrupts the task that waits for the next answer."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._waiting: asyncio.Task[object] | None = None
        self._error: SpinCycleError | None = None

    def check(self, gate: Gate) -> None:
        """Ends the stream if the server shuts down or the credential is no longer valid."""
        if self._error is not None:
            return
        try:
            gate.check_open()
            check_current(self._identity)
        except SpinCycleError as error:
            self._error = error
            if self._waiting is not None:
                self._waiting.cancel()

    async def next(self, answers: AsyncIterator[_Answer]) -> _Answer | None:
        """Returns the next answer; None if there are no more.

        Raises:
            SpinCycleError: The stream must end.
        """
        if self._error is not None:
            raise self._error
        task = self._waiting = asyncio.current_task()
        try:
            return await anext(answers, None)
        except asyncio.CancelledError:
            # The caller may have cancelled the task too. Only the last cancellation is ours.
            if self._error is None or task is None or task.uncancel():
                raise
            raise self._error from None
        finally:
            self._waiting = None


async def requests_while_current(
    requests: AsyncIterator[_Answer], identity: Identity
) -> AsyncIterator[_Answer]:
    """Yields the requests of a stream. Each one is refused if the caller's credential is no longer valid.

    This costs less than `OpenStreams`, for streams whose clients send regularly.

    Raises:
        UnauthenticatedError: As for `OpenStreams.while_current`.
    """
    async for request in requests:
        check_current(identity)
        yield request


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
