"""Writes and reads numbers and texts as bytes, for cursors."""

from __future__ import annotations

_LIMIT = 2**63
"""No number reaches this: the integers of databases are smaller."""

_MAX_BITS = 63


class Writer:
    """Writes values one after the other.

    Attributes:
        data: What was written.
    """

    def __init__(self) -> None:
        self.data = bytearray()

    def number(self, value: int) -> None:
        """Writes a number from 0, below 2^63: seven bits a byte, the lowest first."""
        if not 0 <= value < _LIMIT:
            raise ValueError(f"{value} cannot be written: it is not from 0 to 2^63 - 1")
        while value > 0x7F:
            self.data.append(value & 0x7F | 0x80)
            value >>= 7
        self.data.append(value)

    def text(self, value: str) -> None:
        """Writes a text."""
        data = value.encode()
        self.number(len(data))
        self.data += data


class Reader:
    """Reads values in the order in which they were written.

    Args:
        data: The bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self) -> int:
        """Reads a number.

        Raises:
            IndexError: There are no more bytes.
            ValueError: The number is too large.
        """
        value = 0
        for shift in range(0, _MAX_BITS, 7):
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number is too large")

    def text(self) -> str:
        """Reads a text.

        Raises:
            IndexError: There are not enough bytes.
            ValueError: The bytes are not a text, or contain NUL, which databases refuse.
        """
        length = self.number()
        end = self._at + length
        if end > len(self._data):
            raise IndexError("a text is too long")
        text = self._data[self._at : end].decode()
        if "\0" in text:
            raise ValueError("a text contains NUL")
        self._at = end
        return text
