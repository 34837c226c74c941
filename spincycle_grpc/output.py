"""Limits the output of jobs: keeps its beginning and its end, and replaces the middle by a note."""

from __future__ import annotations

import codecs

_NOTE = "\n[... {} bytes cut out ...]\n"
_LONGEST_NOTE = len(_NOTE.format(2**63))


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
