"""The open streams of reports: at most one for each runner, and a limited number together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from spincycle_grpc.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    ResourceExhaustedError,
)
from spincycle_grpc.v1.runner_reports_pb2 import ReportRequest
from spincycle_server.telemetry.limits import REPORT_STREAMS, LimitUse

MAX_STREAMS = 1000
"""The maximum number of streams that report to one Request Manager."""

FIRST_MESSAGE_TIMEOUT = 30.0
"""Seconds within which a runner must identify itself on a new stream."""


class ReportStreams:
    """The open streams."""

    def __init__(self) -> None:
        self._by_runner: dict[str, _OpenStream] = {}
        self._open: set[_OpenStream] = set()
        self._ending = False

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limit and the number of open streams."""
        return (LimitUse(REPORT_STREAMS, MAX_STREAMS, len(self._open)),)

    def has(self, runner_id: str) -> bool:
        """Whether a runner has a stream here."""
        return runner_id in self._by_runner

    def end(self) -> None:
        """Ends all streams, because the server shuts down. Their last messages are yielded first."""
        self._ending = True
        for stream in self._open:
            stream.interrupt()

    async def messages(self, requests: AsyncIterator[ReportRequest]) -> AsyncIterator[ReportRequest]:
        """Yields the messages of a new stream until the runner ends it, or `end` does.

        If a message identifies its runner, an older stream of the same runner ends.

        Raises:
            ResourceExhaustedError: There are too many streams. Reason: TOO_MANY_STREAMS.
            DeadlineExceededError: The first message takes too long. Reason: RUNNER_UNKNOWN.
            FailedPreconditionError: The runner has opened a newer stream. Reason: STREAM_SUPERSEDED.
        """
        if len(self._open) >= MAX_STREAMS:
            raise ResourceExhaustedError(
                f"the limit of {MAX_STREAMS} streams of reports is reached: try another Request Manager",
                reason="TOO_MANY_STREAMS",
            )
        stream = _OpenStream(requests)
        self._open.add(stream)
        try:
            while not self._ending and (message := await stream.read()) is not None:
                if message.HasField("runner"):
                    self._identify(stream, message.runner.runner_id)
                yield message
        finally:
            self._open.discard(stream)
            if self._by_runner.get(stream.runner_id) is stream:
                del self._by_runner[stream.runner_id]

    def _identify(self, stream: _OpenStream, runner_id: str) -> None:
        if stream.runner_id and stream.runner_id != runner_id:
            self._by_runner.pop(stream.runner_id, None)
        stream.runner_id = runner_id
        older = self._by_runner.get(runner_id)
        self._by_runner[runner_id] = stream
        if older is not None and older is not stream:
            older.is_superseded = True
            older.interrupt()


class _OpenStream:
    """One stream.

    Attributes:
        runner_id: The runner that reports; "" until its first message.
        is_superseded: Whether the runner has opened a newer stream.
    """

    def __init__(self, requests: AsyncIterator[ReportRequest]) -> None:
        self._requests = requests
        self._reading: asyncio.Task[object] | None = None  # the task that waits for a message
        self._is_interrupted = False
        self.runner_id = ""
        self.is_superseded = False

    def interrupt(self) -> None:
        """Ends the stream before its next message. Calling it again changes nothing."""
        if self._reading is not None and not self._is_interrupted:
            self._reading.cancel()
        self._is_interrupted = True

    async def read(self) -> ReportRequest | None:
        """Returns the next message; None if there is none."""
        message = None
        if not self._is_interrupted:
            message = await (self._next_or_interrupted() if self.runner_id else self._next_in_time())
        if message is None and self.is_superseded:
            raise FailedPreconditionError(
                f"job runner {self.runner_id} reports on a newer stream: close this one",
                reason="STREAM_SUPERSEDED",
            )
        return message

    async def _next_in_time(self) -> ReportRequest | None:
        try:
            async with asyncio.timeout(FIRST_MESSAGE_TIMEOUT):
                return await self._next_or_interrupted()
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"the runner did not identify itself within {FIRST_MESSAGE_TIMEOUT:g} s",
                reason="RUNNER_UNKNOWN",
            ) from error

    async def _next_or_interrupted(self) -> ReportRequest | None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (streams are read in tasks)
        self._reading = task
        try:
            return await anext(self._requests, None)
        except asyncio.CancelledError:
            # It may be cancelled by others too, even at the same time.
            if not self._is_interrupted or task.uncancel():
                raise
            return None
        finally:
            self._reading = None
