"""The messages between the supervisor and a worker: frames on a stream socket."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

MAX_FRAME = 16 * 1024 * 1024
"""The maximum size of one message in bytes. Metrics, the largest ones, have some hundred KB."""

_HEAD = struct.Struct(">IB")


class Kind(IntEnum):
    """What a message says.

    Attributes:
        LISTENING: The worker serves.
        ALIVE: The event loop of the worker runs.
        GATHER: The worker asks for the numbers of all workers.
        MEASURE: The supervisor asks the worker for its numbers.
        MEASURED: The numbers of the worker.
        GATHERED: The numbers of the other workers.
        TELL: News for the other workers.
        TOLD: News of another worker.
    """

    LISTENING = 1
    ALIVE = 2
    GATHER = 3
    MEASURE = 4
    MEASURED = 5
    GATHERED = 6
    TELL = 7
    TOLD = 8


class Frame(NamedTuple):
    """One message."""

    kind: Kind
    data: bytes


def encode(kind: Kind, data: bytes = b"") -> bytes:
    """Returns a message as bytes."""
    return _HEAD.pack(len(data), kind) + data


class FrameReader:
    """Finds the messages in the bytes of a stream."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields the messages that are complete with these bytes.

        Raises:
            ValueError: The bytes are not messages.
        """
        self._received += data
        while len(self._received) >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._received)
            if length > MAX_FRAME:
                raise ValueError(f"a message of {length} bytes is too large")
            end = _HEAD.size + length
            if len(self._received) < end:
                return
            content = bytes(self._received[_HEAD.size : end])
            del self._received[:end]
            yield Frame(Kind(kind), content)
