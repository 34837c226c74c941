"""Finds the syntax error in JSON text, or the place of a value in it.

A fast parser reads valid text. This scanner runs only for errors: it reports them with the words and
offsets of the original, whose parser was Go's `encoding/json`. It uses its own stack, not recursion, so
deep nesting is safe.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TypeAlias

MAX_DEPTH = 512
"""How deep lists and objects may nest."""

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indexes, from the outermost value to the innermost."""

_SPACE = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(rb"[0-9]*")
_HEX = frozenset(b"0123456789abcdefABCDEF")
_ESCAPES = frozenset(b'bfnrt\\/"')
_DIGIT = frozenset(b"0123456789")
_WORDS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}


class JsonSyntaxError(ValueError):
    """The text is not JSON. `offset` is the position of the first wrong byte, counted from 1."""

    def __init__(self, problem: str, offset: int) -> None:
        super().__init__(problem)
        self.problem = problem
        self.offset = offset


class JsonEndsEarlyError(ValueError):
    """The text ends before its first value is complete, or is empty."""


@dataclass(frozen=True, slots=True)
class SourceValue:
    """The place of a value: the bytes from `start` up to but not including `end`."""

    start: int
    end: int


def first_value(data: bytes) -> SourceValue:
    """Returns the place of the first value. The text after it is ignored.

    Raises:
        JsonSyntaxError: The value is not JSON, or nests deeper than MAX_DEPTH.
        JsonEndsEarlyError: The value is not complete.
    """
    return _Scanner(data).scan(None)


def locate(data: bytes, path: Path) -> SourceValue:
    """Returns the place of the value at a path in valid JSON.

    If an object has a key twice, the last one counts.

    Raises:
        LookupError: There is no such value.
    """
    scanner = _Scanner(data)
    scanner.scan(path)
    if scanner.found is None:
        raise LookupError(path)
    return scanner.found


class _Scanner:
    """One pass over a text."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._stack: list[tuple[bool, int, int]] = []  # (is an object, its start, index of the item)
        self._path: list[str | int] = []
        self.found: SourceValue | None = None

    def scan(self, wanted: Path | None) -> SourceValue:
        """Scans the first value. Sets `found` to the place of the wanted value in it."""
        self._skip_space()
        if self._at == len(self._data):
            raise JsonEndsEarlyError("EOF")
        first = self._at
        while True:
            start = self._at
            byte = self._byte()
            if byte in b"{[":
                if self._open(byte == ord("{"), start):
                    continue
            else:
                self._scalar(byte)
                self._note(wanted, start)
            while self._stack and not self._next_member(wanted):
                pass
            if not self._stack:
                return SourceValue(first, self._at)

    def _open(self, is_object: bool, start: int) -> bool:
        """Enters a list or object. Returns whether it has a first member."""
        if len(self._stack) == MAX_DEPTH:
            raise JsonSyntaxError("exceeded max depth", start + 1)
        self._stack.append((is_object, start, 0))
        self._at += 1
        self._skip_space()
        if self._byte() == (ord("}") if is_object else ord("]")):
            self._path.append(0)
            return False
        if is_object:
            self._path.append(self._key())
        else:
            self._path.append(0)
        return True

    def _next_member(self, wanted: Path | None) -> bool:
        """Moves past a value. Returns whether another one follows in the same list or object."""
        is_object, start, index = self._stack[-1]
        self._skip_space()
        byte = self._byte()
        if byte == (ord("}") if is_object else ord("]")):
            self._at += 1
            self._stack.pop()
            self._path.pop()
            self._note(wanted, start)
            return False
        if byte != ord(","):
            raise self._wrong("after object key:value pair" if is_object else "after array element")
        self._at += 1
        self._skip_space()
        self._byte()
        self._stack[-1] = (is_object, start, index + 1)
        self._path[-1] = self._key() if is_object else index + 1
        return True

    def _key(self) -> str:
        if self._byte() != ord('"'):
            raise self._wrong("looking for beginning of object key string")
        start = self._at
        self._string()
        text = self._data[start : self._at].decode("utf-8", "replace")
        self._skip_space()
        if self._byte() != ord(":"):
            raise self._wrong("after object key")
        self._at += 1
        self._skip_space()
        self._byte()
        key: str = json.loads(text)
        return key

    def _scalar(self, byte: int) -> None:
        if byte == ord('"'):
            self._string()
        elif byte == ord("-") or byte in _DIGIT:
            self._number()
        elif byte in _WORDS:
            self._word(_WORDS[byte])
        else:
            raise self._wrong("looking for beginning of value")

    def _word(self, word: bytes) -> None:
        for expected in word:
            if self._byte() != expected:
                raise self._wrong(f"in literal {word.decode()} (expecting {_quoted(expected)})")
            self._at += 1

    def _string(self) -> None:
        self._at += 1
        while True:
            plain = _PLAIN.match(self._data, self._at)
            assert plain is not None  # noqa: S101 (the pattern also matches the empty string)
            self._at = plain.end()
            byte = self._byte()
            if byte == ord('"'):
                self._at += 1
                return
            if byte != ord("\\"):
                raise self._wrong("in string literal")
            self._at += 1
            self._escape()

    def _escape(self) -> None:
        byte = self._byte()
        if byte == ord("u"):
            for _ in range(4):
                self._at += 1
                if self._byte() not in _HEX:
                    raise self._wrong("in \\u hexadecimal character escape")
        elif byte not in _ESCAPES:
            raise self._wrong("in string escape code")
        self._at += 1

    def _number(self) -> None:
        if self._data[self._at] == ord("-"):
            self._at += 1
            if self._byte() not in _DIGIT:
                raise self._wrong("in numeric literal")
        if self._data[self._at] == ord("0"):
            self._at += 1
        else:
            self._digits("in numeric literal")
        if self._peek() == ord("."):
            self._at += 1
            self._digits("after decimal point in numeric literal")
        if self._peek() in b"eE":
            self._at += 1
            if self._byte() in b"+-":
                self._at += 1
            self._digits("in exponent of numeric literal")

    def _digits(self, where: str) -> None:
        if self._byte() not in _DIGIT:
            raise self._wrong(where)
        digits = _DIGITS.match(self._data, self._at)
        assert digits is not None  # noqa: S101 (the pattern also matches the empty string)
        self._at = digits.end()

    def _peek(self) -> int:
        return self._data[self._at] if self._at < len(self._data) else 0

    def _byte(self) -> int:
        if self._at >= len(self._data):
            raise JsonEndsEarlyError("unexpected EOF")
        return self._data[self._at]

    def _skip_space(self) -> None:
        space = _SPACE.match(self._data, self._at)
        assert space is not None  # noqa: S101 (the pattern also matches the empty string)
        self._at = space.end()

    def _note(self, wanted: Path | None, start: int) -> None:
        if wanted is not None and len(wanted) == len(self._path) and wanted == tuple(self._path):
            self.found = SourceValue(start, self._at)

    def _wrong(self, where: str) -> JsonSyntaxError:
        return JsonSyntaxError(f"invalid character {_quoted(self._data[self._at])} {where}", self._at + 1)


_NAMED = {
    7: "\\a",
    8: "\\b",
    9: "\\t",
    10: "\\n",
    11: "\\v",
    12: "\\f",
    13: "\\r",
    34: '"',
    39: "\\'",
    92: "\\\\",
}


def _quoted(byte: int) -> str:
    if byte in _NAMED:
        return f"'{_NAMED[byte]}'"
    if chr(byte).isprintable():
        return f"'{chr(byte)}'"
    return f"'\\x{byte:02x}'" if byte < 0x80 else f"'\\u{byte:04x}'"
