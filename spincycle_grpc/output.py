"""Limits the output of jobs: keeps its beginning and its end, and replaces the middle by a note."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from spincycle_grpc.errors import InvalidArgumentError

STDOUT, STDERR = 1, 2
"""The streams of a job's output, as file descriptors."""

PIECE = 256 * 1024
"""The maximum size of the text in one message of FollowOutput, in bytes of UTF-8."""

_NOTE = "\n[... {} bytes cut out ...]\n"
_LONGEST_NOTE = len(_NOTE.format(2**63))
_NOTE_FORM = re.compile(rb"\n\[\.\.\. ([1-9][0-9]{0,18}) bytes cut out \.\.\.\]\n")

SHORTEST_NOTE = len(_NOTE.format(1))
"""The size of the shortest note in bytes."""

MIDDLE = 2 * _LONGEST_NOTE
"""The number of bytes in the middle of cut output that surely contain the note."""

_LEAST_TAIL = 64 * 1024
"""The minimum number of bytes to keep of the end while output is written, for those who read it meanwhile."""

_UNEVEN = range(-3, 5)
"""By how many bytes the beginning of cut output can be longer than its end: characters are not split."""


class KeptOutput:
    """Keeps what a job writes to both streams, when no Job Runner keeps it.

    Args:
        limit: The maximum size of each stream's text in bytes of UTF-8.
    """

    def __init__(self, limit: int) -> None:
        self._buffers = {STDOUT: OutputBuffer(limit), STDERR: OutputBuffer(limit)}

    def write(self, stream: int, data: bytes) -> None:
        """Adds bytes to STDOUT or STDERR."""
        self._buffers[stream].write(data)

    def text(self, stream: int) -> str:
        """Ends a stream, and returns its text."""
        return self._buffers[stream].text()


class OutputBuffer:
    """Collects the bytes that a job writes, up to a limit. It can be read while it is written.

    Bytes that are not UTF-8 become U+FFFD, which counts as three bytes. One thread at a time may use it.

    Attributes:
        size: The number of bytes written so far. An incomplete character counts once it is complete.
    """

    def __init__(self, limit: int) -> None:
        """Creates an empty buffer.

        Args:
            limit: The maximum size of the text in bytes of UTF-8, including the note. The note is complete
                even if it exceeds the limit.
        """
        self.size = 0
        self._head = bytearray()
        self._tail = bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._set_limit(limit)

    @property
    def held(self) -> int:
        """The number of bytes in memory: at most twice the limit, or 128 KiB more than the limit."""
        return len(self._head) + len(self._tail)

    def write(self, data: bytes) -> None:
        """Adds bytes. A character may be split between two calls."""
        if not data.isascii() or self._decoder.getstate()[0]:
            data = self._decoder.decode(data).encode()
        self._add(data)

    def end(self) -> None:
        """Ends the output: an incomplete character becomes U+FFFD."""
        self._add(self._decoder.decode(b"", final=True).encode())

    def text(self) -> str:
        """Ends the output. Returns it as text of at most `limit` bytes."""
        self.end()
        if self.size <= self._limit:
            return (self._head + self._tail).decode()
        head = _whole_characters(self._head[: self._head_room])
        tail = self._head[self._head_room :] + self._tail
        tail = tail[max(0, len(tail) - self._tail_room) :].lstrip(_CONTINUATION_BYTES)
        note = _NOTE.format(self.size - len(head) - len(tail))
        return head.decode() + note + tail.decode()

    def piece(self, offset: int, size: int) -> tuple[int, bytes]:
        """Returns text from the middle of the output, and its offset.

        The offset is larger than the given one if text at the given one was dropped. It is smaller if the
        given one is inside a character.

        Args:
            offset: Where to begin, in bytes of UTF-8; at most `self.size`.
            size: The maximum number of bytes; at least that of a character.
        """
        data, first = self._head, 0
        if offset >= len(self._head):
            data, first = self._tail, self.size - len(self._tail)
        start = max(0, offset - first)
        end = start + size
        while 0 < start < len(data) and _is_inside(data[start]):
            start -= 1
        while start < len(data) and _is_inside(data[start]):  # The character's beginning was dropped.
            start += 1
        return first + start, bytes(_whole_characters(data[start:end]))

    def reduce(self, limit: int) -> None:
        """Lowers the limit, and drops what exceeds it."""
        self._set_limit(min(limit, self._limit))
        kept = _start_of_character(self._head, self._limit)
        rest = self._head[kept:] + self._tail
        del self._head[kept:]
        self._tail = rest[max(0, len(rest) - self._tail_kept) :]

    def _set_limit(self, limit: int) -> None:
        room = max(0, limit - _LONGEST_NOTE)
        self._limit = limit
        self._tail_room = room // 2
        self._head_room = room - self._tail_room
        self._tail_kept = max(self._tail_room, _LEAST_TAIL)

    def _add(self, data: bytes) -> None:
        self.size += len(data)
        taken = 0
        if not self._tail:
            taken = _start_of_character(data, max(0, self._limit - len(self._head)))
        self._head += data[:taken]
        self._tail += data[taken:]
        if len(self._tail) > 2 * self._tail_kept:  # Not at each write, because moving bytes is slow.
            del self._tail[: len(self._tail) - self._tail_kept]


_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))


def _is_inside(byte: int) -> bool:
    """Whether a byte of UTF-8 continues a character."""
    return byte & 0xC0 == 0x80


def _start_of_character(data: bytes | bytearray, position: int) -> int:
    """Returns where the character begins whose byte is at a position, or the position if it is the end."""
    while 0 < position < len(data) and _is_inside(data[position]):
        position -= 1
    return position


def _whole_characters(data: bytearray) -> bytearray:
    """Returns UTF-8 without an incomplete character at its end."""
    return data[: len(data.decode("utf-8", "ignore").encode())]


class OutputCut(NamedTuple):
    """What was cut out of an output.

    Attributes:
        position: Where the note stands in the output that is left, in bytes of UTF-8. That many bytes of the
            beginning are left.
        size: The number of bytes that were cut out.
        note: The size of the note that replaces them.
    """

    position: int
    size: int
    note: int


def first_of_middle(size: int) -> int:
    """Returns the position of the MIDDLE bytes in the middle of an output of `size` bytes."""
    return max(0, (size - MIDDLE) // 2)


def find_cut(middle: bytes, first: int, size: int) -> OutputCut | None:
    """Finds the note of `OutputBuffer` and `cut_output`, which stands in the middle of output that was cut.

    Args:
        middle: The MIDDLE bytes in the middle of the output, or all of a shorter output.
        first: Their position.
        size: The size of the output in bytes.
    """
    for match in _NOTE_FORM.finditer(middle):
        position, after = first + match.start(), first + match.end()
        if position - (size - after) in _UNEVEN:
            return OutputCut(position, int(match[1]), len(match[0]))
    return None


def note_of(size: int) -> str:
    """Returns the note that replaces `size` bytes of output."""
    return _NOTE.format(size)


def bad_offset(offset: int, end: int) -> InvalidArgumentError:
    """Returns the error for an offset beyond the end of the output. Reason: BAD_OFFSET."""
    return InvalidArgumentError(
        f"offset {offset} is beyond the end of the output, which has {end} bytes: start at an offset that "
        "was received",
        reason="BAD_OFFSET",
    )


def cut_output(text: str, limit: int) -> str:
    """Returns text of at most `limit` bytes in UTF-8. A note replaces the middle of longer text."""
    if len(text) * 4 <= limit:
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return text
    buffer = OutputBuffer(limit)
    buffer.write(data)
    return buffer.text()
