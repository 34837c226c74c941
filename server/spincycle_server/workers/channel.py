"""A worker's connection to its supervisor."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import orjson
import structlog

from spincycle_server.workers.frames import Frame, FrameReader, Kind, encode
from spincycle_server.workers.gathering import GATHER_TIMEOUT
from spincycle_server.workers.supervisor import Place

logger = structlog.get_logger(__name__)

MAX_UNSENT = 1024 * 1024
"""Bytes that wait for a supervisor that does not read. Further news are dropped."""

_ANSWER_TIMEOUT = 2 * GATHER_TIMEOUT
_READ = 256 * 1024


class Gathered(NamedTuple):
    """The numbers of the other workers.

    Attributes:
        numbers: The numbers of those that answered, as JSON.
        counts: Earlier numbers of those that did not answer or have ended, of which only counts are valid.
        silent: How many did not answer.
        replaced: How many have ended and were replaced.
    """

    numbers: list[object]
    counts: list[object]
    silent: int
    replaced: int


class Channel:
    """Tells the supervisor how the worker is, and answers it.

    Args:
        place: The place of the worker.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._gathering: asyncio.Future[Gathered] | None = None
        self._measure: Callable[[], Awaitable[bytes]] | None = None
        self._on_news: Callable[[bytes], None] | None = None
        self._measuring: asyncio.Task[None] | None = None
        self._round = b""

    async def connect(self) -> None:
        """Connects to the supervisor. Call it first."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._place.connection)

    def answer_with(self, measure: Callable[[], Awaitable[bytes]]) -> None:
        """Sets what returns the numbers of this worker as JSON."""
        self._measure = measure

    def on_news(self, told: Callable[[bytes], None]) -> None:
        """Sets what is called with the news of other workers."""
        self._on_news = told

    def listens(self) -> None:
        """Tells the supervisor that this worker serves."""
        self._send(Kind.LISTENING)

    def tell(self, news: bytes) -> None:
        """Sends news to the other workers. They may be lost: they must be hints that save time."""
        if self._writer is not None and self._writer.transport.get_write_buffer_size() < MAX_UNSENT:
            self._send(Kind.TELL, news)

    async def gather(self) -> Gathered:
        """Returns the numbers of the other workers.

        Raises:
            TimeoutError: The supervisor does not answer.
        """
        if self._gathering is None or self._gathering.done():
            self._gathering = asyncio.get_running_loop().create_future()
            self._send(Kind.GATHER)
        async with asyncio.timeout(_ANSWER_TIMEOUT):
            return await asyncio.shield(self._gathering)

    async def run(self) -> None:
        """Reads what the supervisor sends, until cancelled. Ends the process if the supervisor is gone."""
        assert self._reader is not None  # noqa: S101 (`connect` was called)
        frames = FrameReader()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._show_life())
                while data := await self._reader.read(_READ):
                    for frame in frames.feed(data):
                        self._take(frame)
                logger.critical("the supervisor is gone: exited at once")
                os._exit(1)
        finally:
            if self._measuring is not None:
                self._measuring.cancel()

    async def _show_life(self) -> None:
        while self._place.alive_interval is not None:
            self._send(Kind.ALIVE)
            await asyncio.sleep(self._place.alive_interval)

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.MEASURE:
                self._round = frame.data
                if self._measuring is None or self._measuring.done():
                    self._measuring = asyncio.create_task(self._answer(), name="measure")
            case Kind.GATHERED:
                if self._gathering is not None and not self._gathering.done():
                    self._gathering.set_result(Gathered(**orjson.loads(frame.data)))
            case Kind.TOLD:
                if self._on_news is not None:
                    self._on_news(frame.data)

    async def _answer(self) -> None:
        if self._measure is None:
            return
        try:
            numbers = await self._measure()
        except Exception:  # Without an answer, the worker counts as silent.
            logger.exception("the metrics of this worker cannot be read")
        else:
            self._send(Kind.MEASURED, self._round + numbers)

    def _send(self, kind: Kind, data: bytes = b"") -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encode(kind, data))
