"""Counts the values of JSON text and its depth before the text is parsed.

A parser in C holds the interpreter's lock until it has parsed the whole text, which takes long for many
values. This module looks at a text in steps, and lets other threads run between them. It does not check the
syntax: the counts of malformed text are right up to the place at which a parser gives up.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.rpc.input_limits import VALUES_PER_NAME

MAX_DEPTH = 512
"""How deep lists and objects of a body may nest."""

_STEP = 262_144
"""Bytes of one step, which takes at most a few milliseconds."""

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_CHANGES = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""For each bracket, the change of the depth as a signed byte."""


def check_json(data: bytes, max_values: int) -> None:
    """Checks that a text has at most `max_values` values, and nests at most MAX_DEPTH levels deep.

    The name of a member of an object counts as VALUES_PER_NAME values. An empty list or object counts as two.

    Raises:
        InvalidArgumentError: It has more values, or nests deeper. Reasons: TOO_MANY_VALUES, TOO_DEEP.
    """
    if len(data) <= min(max_values, MAX_DEPTH):  # Each value and each level takes a byte, a name four.
        return
    if _most_values(data) <= max_values and _openings(data) <= MAX_DEPTH:
        return
    values, depth = 1, 0
    for part in _outside_strings(data):
        values += _separators(part)
        openings = _openings(part)
        if values + openings > max_values:
            raise _too_many_values(max_values)
        values += openings
        if depth + openings > MAX_DEPTH:
            _check_depth(part, depth)
        depth += 2 * openings - len(_brackets(part))


def _check_depth(part: bytes, depth: int) -> None:
    changes = memoryview(_brackets(part).translate(_CHANGES)).cast("b")
    if max(accumulate(changes, initial=depth)) > MAX_DEPTH:
        raise InvalidArgumentError(
            f"the body nests too deep: lists and objects may be at most {MAX_DEPTH} levels deep",
            reason="TOO_DEEP",
        )


def _too_many_values(max_values: int) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"the body has too many values: at most {max_values} (server.max_values), and each name in an object "
        f"counts as {VALUES_PER_NAME}",
        reason="TOO_MANY_VALUES",
    )


def _most_values(data: bytes) -> int:
    """Returns an upper bound of the number of values. It also counts characters in strings."""
    return 1 + _separators(data) + _openings(data)


def _separators(part: bytes) -> int:
    return part.count(b",") + VALUES_PER_NAME * part.count(b":")


def _openings(part: bytes) -> int:
    return part.count(b"[") + part.count(b"{")


def _brackets(part: bytes) -> bytes:
    return part.translate(None, _NOT_BRACKETS)


def _outside_strings(data: bytes) -> Iterator[bytes]:
    """Yields the text in steps, without the contents of strings."""
    is_escaped = is_in_string = False
    for start in range(0, len(data), _STEP):
        part = data[start + is_escaped : start + _STEP].replace(b"\\\\", b"")
        is_escaped = part.endswith(b"\\")
        pieces = part.replace(b'\\"', b"").split(b'"')
        yield b"".join(pieces[is_in_string::2])
        is_in_string ^= len(pieces) % 2 == 0
