"""Limits the output of jobs: keeps its beginning and its end, and replaces the middle by a note."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

_NOTE = "\n[... {} bytes cut out ...]\n"
_LONGEST_NOTE = len(_NOTE.format(2**63))
_NOTE_FORM = re.compile(rb"\n\[\.\.\. ([1-9][0-9]{0,18}) bytes cut out \.\.\.\]\n")

SHORTEST_NOTE = len(_NOTE.format(1))
"""The size of the shortest note in bytes."""

MIDDLE = 2 * _LONGEST_NOTE
"""The number of bytes in the middle of cut output that surely contain the note."""

_UNEVEN = range(-3, 5)
"""By how many bytes the beginning of cut output can be longer than its end: characters are not split."""


class OutputBuffer:
    """Collects the bytes that a process writes, up to a limit.

    Bytes that are not UTF-8 become U+FFFD, which counts as three bytes.
    """

    def __init__(self, limit: int) -> None:
        """Creates an empty buffer.

        Args:
            limit: The maximum size of the text in bytes of UTF-8, including the note. The note is complete
                even if it exceeds the limit.
        """
        room = max(0, limit - _LONGEST_NOTE)
        self._limit = limit
        self._tail_room = room // 2
        self._head_room = room - self._tail_room
        self._head = bytearray()
        self._tail = bytearray()
        self._size = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, data: bytes) -> None:
        """Adds bytes. A character may be split between two calls."""
        self._add(self._decoder.decode(data).encode())

    def text(self) -> str:
        """Ends the output. Returns it as text of at most `limit` bytes."""
        self._add(self._decoder.decode(b"", final=True).encode())
        if self._size <= self._limit:
            return (self._head + self._tail).decode()
        head = _whole_characters(self._head[: self._head_room])
        tail = self._head[self._head_room :] + self._tail
        tail = tail[max(0, len(tail) - self._tail_room) :].lstrip(_CONTINUATION_BYTES)
        note = _NOTE.format(self._size - len(head) - len(tail))
        return head.decode() + note + tail.decode()

    def _add(self, data: bytes) -> None:
        self._size += len(data)
        taken = max(0, self._limit - len(self._head))
        self._head += data[:taken]
        self._tail += data[taken:]
        if len(self._tail) > 2 * self._tail_room + 65536:  # Not at each write, because moving bytes is slow.
            del self._tail[: len(self._tail) - self._tail_room]


_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))


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
