"""What the tries of one chain write, until the job log has it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import TypeAlias

from spincycle_server.job_runner.follow_pace import FollowPace
from spincycle_server.job_runner.try_output import Offsets, OutputPiece, TryOutput

HEARTBEAT = 15.0
"""Seconds without output after which a follower gets a sign of life."""

OutputEvent: TypeAlias = int | OutputPiece | None
"""The number of a try that has begun, a piece of its output, or a sign of life."""


class ChainOutputs:
    """The outputs of the tries of one chain. All methods belong to the event loop.

    Args:
        tries_of: Returns the number of a job's newest try, running or ended; 0 if there is none.
        pace: The pace of all followers of the runner.
    """

    def __init__(self, tries_of: Callable[[str], int], pace: FollowPace) -> None:
        self._tries_of = tries_of
        self._pace = pace
        self._outputs: dict[str, tuple[int, TryOutput]] = {}
        self._waiting: set[asyncio.Event] = set()
        self._is_closed = False

    def begin(self, job_id: str, number: int, output: TryOutput) -> None:
        """Adds the output of a try that begins."""
        self._outputs[job_id] = (number, output)
        self._tell()

    def recorded(self, job_id: str, number: int) -> None:
        """Forgets the output of a try, because its end is committed."""
        found = self._outputs.get(job_id)
        if found is not None and found[0] == number:
            del self._outputs[job_id]
            found[1].release()

    def close(self) -> None:
        """Forgets all outputs, and ends all followers, because the runner no longer holds the chain."""
        self._is_closed = True
        outputs, self._outputs = self._outputs, {}
        for _, output in outputs.values():
            output.release()
        self._tell()

    async def follow(self, job_id: str, number: int, offsets: Offsets) -> AsyncGenerator[OutputEvent, None]:
        """Yields the number of a try once it has begun, then its output, until the job log has it.

        Args:
            job_id: The job.
            number: The number of the try. 0: the try that runs; if none runs, there is no event.
            offsets: Where to begin.

        Raises:
            InvalidArgumentError: An offset is beyond the end. Reason: BAD_OFFSET.
        """
        news = asyncio.Event()
        self._waiting.add(news)
        try:
            while (found := self._outputs.get(job_id)) is None or found[0] < number:
                if self._is_closed or self._tries_of(job_id) >= number:
                    return
                if not await _set_within(news, HEARTBEAT):
                    yield None
                news.clear()
        finally:
            self._waiting.discard(news)
        if number in (0, found[0]):
            yield found[0]
            async with contextlib.aclosing(_follow(found[1], offsets, self._pace)) as events:
                async for event in events:
                    yield event

    def _tell(self) -> None:
        for news in self._waiting:
            news.set()


async def _follow(output: TryOutput, offsets: Offsets, pace: FollowPace) -> AsyncGenerator[OutputEvent, None]:
    news = output.subscribe()
    was_busy = False
    try:
        while not output.is_released:
            news.clear()
            pieces = output.pieces(offsets, pace.batch)
            pace.busy += bool(pieces) - was_busy
            was_busy = bool(pieces)
            for piece in pieces:
                yield piece
            if pieces:
                await asyncio.sleep(pace.pause)
            elif not output.is_released and not await _set_within(news, HEARTBEAT):
                yield None
    finally:
        pace.busy -= was_busy
        output.unsubscribe(news)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    """Waits for an event. Returns whether it was set in time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
