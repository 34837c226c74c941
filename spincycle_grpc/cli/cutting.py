"""Cuts texts to a number of terminal columns."""

from __future__ import annotations

from collections.abc import Sequence

from spincycle_grpc.job_paths import SEPARATOR

_CUT = "…"
_NARROWEST_PATH = 12
"""The width below which only the end of a path is kept."""


def cell_width(text: str) -> int:
    """Returns the width of a printable text in terminal columns."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cut_text(text: str, width: int, *, keeps_end: bool = False) -> str:
    """Returns a text of at most `width` terminal columns. An ellipsis replaces the rest of a longer one."""
    if cell_width(text) <= width:
        return text
    if keeps_end:
        return f"{_CUT}{_end(text, width - 1)}"
    return f"{_beginning(text, width - 1)}{_CUT}"


def cut_path(path: str, width: int) -> str:
    """Returns the path of a job in at most `width` terminal columns.

    Jobs of different hosts stay different as long as possible. First the outer sequences are left out, then
    the arg of the host in "host web7", then the middle of its value and the end of a long name of the job.
    """
    if cell_width(path) <= width:
        return path
    bare = path.lstrip(" ")
    indent = path[: len(path) - len(bare)]
    room = width - len(indent)
    if room < _NARROWEST_PATH:
        return cut_text(path, width, keeps_end=True)
    return indent + _cut_parts(bare.split(SEPARATOR), room)


def _cut_parts(parts: Sequence[str], width: int) -> str:
    if len(parts) == 1:
        return cut_text(parts[0], width)
    for first in range(1, len(parts) - 1):
        shorter = SEPARATOR.join((_CUT, *parts[first:]))
        if cell_width(shorter) <= width:
            return shorter
    sequence, name = parts[-2:]
    value = sequence.partition(" ")[2] or sequence
    room = width - len(SEPARATOR)
    name = cut_text(name, max(room // 2, room - cell_width(value)))
    room -= cell_width(name)
    shown = sequence if cell_width(sequence) <= room else _cut_middle(value, room)
    return f"{shown}{SEPARATOR}{name}"


def _cut_middle(text: str, width: int) -> str:
    """Returns a text of at most `width` columns, without its middle: hosts differ at both ends."""
    if cell_width(text) <= width:
        return text
    end = _end(text, (width - 1) // 4)
    return f"{_beginning(text, width - 1 - cell_width(end))}{_CUT}{end}"


def _beginning(text: str, width: int) -> str:
    return text[: _fitting(text, width)]


def _end(text: str, width: int) -> str:
    return text[len(text) - _fitting(text[::-1], width) :]


def _fitting(text: str, width: int) -> int:
    """Returns how many characters at the beginning of a text fit."""
    room = width
    for count, character in enumerate(text):
        room -= cell_width(character)
        if room < 0:
            return count
    return len(text)
