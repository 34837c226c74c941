"""What one try writes: kept for the job log, and read by followers while the try runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from spincycle_grpc.output import PIECE, STDERR, STDOUT, OutputBuffer, bad_offset, cut_output
from spincycle_grpc.v1.output_pb2 import (
    OUTPUT_GAP_REASON_TRUNCATED,
    OUTPUT_STREAM_STDERR,
    OUTPUT_STREAM_STDOUT,
    OutputGap,
    OutputStream,
    OutputText,
)
from spincycle_server.telemetry.limits import HELD_OUTPUT, LimitUse

MAX_HELD = 256 * 1024 * 1024
"""The size of the output of all running tries, in bytes, beyond which the tries that write keep less."""

LEAST_KEPT = 64 * 1024
"""The bytes of stdout, and of stderr, that a try keeps at least."""

_TURNS = 1000
"""How many changes between stdout and stderr are remembered, so that followers see them in this order."""

_TURNS_AT_ONCE = 20
"""How many of these changes a follower may be behind. Further behind, it gets stdout before stderr."""

_STREAMS = {OUTPUT_STREAM_STDOUT: STDOUT, OUTPUT_STREAM_STDERR: STDERR}

OutputPiece: TypeAlias = OutputText | OutputGap
Offsets: TypeAlias = dict[OutputStream.ValueType, int]


class HeldOutput:
    """The size of the output of all running tries of a runner."""

    def __init__(self) -> None:
        self._size = 0
        self._lock = threading.Lock()

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limit and the bytes that all tries hold."""
        return (LimitUse(HELD_OUTPUT, MAX_HELD, self._size),)

    def add(self, size: int) -> bool:
        """Adds a number of bytes, in any thread. Returns whether MAX_HELD is exceeded."""
        with self._lock:
            self._size += size
            return self._size > MAX_HELD


class TryOutput:
    """The output of one try. The job may write in any thread. All other methods belong to the event loop.

    A try that writes nothing has no buffers. What processes write that the job has forked is dropped. A job
    that is pickled for another process leaves its output behind.

    Args:
        limit: The maximum number of bytes to keep of stdout, and of stderr, for the job log.
        held: The size of the output of all running tries.

    Attributes:
        is_released: Whether the output is forgotten.
    """

    __slots__ = (
        "_buffers", "_counted", "_held", "_is_ended", "_is_told", "_last", "_limit", "_lock", "_loop",
        "_news", "_process", "_turns", "is_released",
    )  # fmt: skip

    def __init__(self, limit: int, held: HeldOutput) -> None:
        self._limit = limit
        self._held = held
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._buffers: dict[int, OutputBuffer] = {}
        self._turns: deque[tuple[int, int]] | None = None
        self._last = 0
        self._counted = 0
        self._is_ended = False
        self.is_released = False
        self._news: set[asyncio.Event] = set()
        self._is_told = False

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Pickles as None."""
        return type(None), ()

    def __deepcopy__(self, memo: object) -> TryOutput:
        """Returns itself: a copy of a job writes where the job writes."""
        return self

    def write(self, stream: int, data: bytes) -> None:
        """Adds what the job writes to STDOUT or STDERR. Does nothing once the try has ended."""
        if os.getpid() != self._process:  # The lock may have been held when the process was forked.
            return
        with self._lock:
            if self._is_ended:
                return
            self._add(stream, data)
            is_told, self._is_told = self._is_told or not self._news, bool(self._news)
        if not is_told:
            with contextlib.suppress(RuntimeError):  # The loop is closed: the runner has stopped.
                self._loop.call_soon_threadsafe(self._tell)

    def text(self, stream: int) -> str:
        """Returns what the job has written to a stream, as the job log keeps it."""
        with self._lock:
            buffer = self._buffers.get(stream)
            return "" if buffer is None else buffer.text()

    def end(self, returned: Mapping[int, str]) -> dict[int, str]:
        """Ends the output. It is forgotten if nobody follows it.

        Args:
            returned: What the job returned as its output, by stream. It follows what the job has written. If
                it is the same, it is kept once.

        Returns:
            The output for the job log, by stream, each of at most `limit` bytes.
        """
        with self._lock:
            self._is_ended = True
            texts = {stream: self._joined(stream, text) for stream, text in returned.items()}
        if self._news:
            self._tell()
        else:
            self.release()
        return texts

    def release(self) -> None:
        """Forgets the output, because the job log has it or will have it, and tells the followers."""
        with self._lock:
            self._is_ended = self.is_released = True
            if self._buffers:
                self._buffers.clear()
                self._count_held()
        self._tell()

    def subscribe(self) -> asyncio.Event:
        """Returns an event that is set whenever the job writes, until `unsubscribe`."""
        event = asyncio.Event()
        self._news.add(event)
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        """Ends a subscription."""
        self._news.discard(event)

    def pieces(self, offsets: Offsets, limit: int) -> list[OutputPiece]:
        """Returns what was written since the offsets, and moves the offsets behind it.

        Args:
            offsets: Where to begin.
            limit: The size in bytes beyond which no further piece is returned. A piece is no larger.

        Raises:
            InvalidArgumentError: An offset is beyond the end. Reason: BAD_OFFSET.
        """
        with self._lock:
            if self.is_released:
                return []
            for stream, offset in offsets.items():
                size = self._size(_STREAMS[stream])
                if offset > size:
                    raise bad_offset(offset, size)
            found: list[OutputPiece] = []
            size = 0
            for piece in self._pieces(offsets, min(limit, PIECE)):
                found.append(piece)
                size += piece.ByteSize()
                if size >= limit:
                    break
            return found

    def _size(self, stream: int) -> int:
        buffer = self._buffers.get(stream)
        return 0 if buffer is None else buffer.size

    def _add(self, stream: int, data: bytes) -> None:
        buffer = self._buffers.get(stream)
        if buffer is None:
            buffer = self._buffers[stream] = OutputBuffer(self._limit)
        if self._last != stream:
            if self._turns is None:
                self._turns = deque(maxlen=_TURNS)
            self._turns.append((self._size(STDOUT), self._size(STDERR)))
            self._last = stream
        buffer.write(data)
        if self._count_held() and buffer.held > 3 * LEAST_KEPT:
            buffer.reduce(LEAST_KEPT)
            self._count_held()

    def _count_held(self) -> bool:
        """Counts what the buffers hold now. Returns whether all tries together hold too much."""
        before, self._counted = self._counted, sum(buffer.held for buffer in self._buffers.values())
        return self._held.add(self._counted - before)

    def _joined(self, stream: int, returned: str) -> str:
        buffer = self._buffers.get(stream)
        if buffer is None:
            return cut_output(returned, self._limit)
        written = buffer.text()
        if not returned or returned == written:
            return written
        self._add(stream, returned.encode() if written.endswith("\n") else b"\n" + returned.encode())
        return buffer.text()

    def _pieces(self, offsets: Offsets, largest: int) -> Iterator[OutputPiece]:
        for turn in self._turns_after(offsets):
            for stream, end in zip(_STREAMS, turn, strict=True):
                if offsets[stream] < end:
                    yield from self._between(stream, offsets, end, largest)
        for stream, number in _STREAMS.items():
            yield from self._between(stream, offsets, self._size(number), largest)

    def _turns_after(self, offsets: Offsets) -> list[tuple[int, int]]:
        """Returns the turns that a reader has not passed, unless they are too many."""
        read = sum(offsets.values())
        turns: list[tuple[int, int]] = []
        for turn in reversed(self._turns or ()):
            if sum(turn) <= read:
                return turns[::-1]
            if len(turns) == _TURNS_AT_ONCE:
                break
            turns.append(turn)
        return []

    def _between(
        self, stream: OutputStream.ValueType, offsets: Offsets, end: int, largest: int
    ) -> Iterator[OutputPiece]:
        buffer = self._buffers.get(_STREAMS[stream])
        while buffer is not None and offsets[stream] < end:
            offset, data = buffer.piece(offsets[stream], min(largest, end - offsets[stream]))
            before, offsets[stream] = offsets[stream], offset
            if offset > before:
                yield OutputGap(
                    stream=stream, to=offset, reason=OUTPUT_GAP_REASON_TRUNCATED, **{"from": before}
                )
            if not data:
                return
            offsets[stream] += len(data)
            yield OutputText(stream=stream, offset=offset, text=data.decode())

    def _tell(self) -> None:
        self._is_told = False
        for event in self._news:
            event.set()
