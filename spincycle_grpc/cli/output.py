"""The output of `spinc`: tables, fields and JSON, without characters that control a terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import click
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc.duration import format_duration
from spincycle_grpc.state import State
from spincycle_grpc.structs import from_value

_COLORS = {"COMPLETE": "green", "FAIL": "red", "STOPPED": "yellow", "RUNNING": "cyan", "SUSPENDED": "magenta"}
DUMB_TERMINALS = ("dumb", "unknown")
"""The values of TERM for terminals without colors and without a cursor that moves."""

_SECOND = 1_000_000_000


def printable(text: str) -> str:
    """Returns text on one line, with escapes for characters that are not printable."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def printable_lines(text: str) -> list[str]:
    """Returns the lines of a text, printable except for tabs."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return ["\t".join(printable(part) for part in line.removesuffix("\r").split("\t")) for line in lines]


def one_line(text: str) -> str:
    """Returns printable text on one line, with single spaces for all white space."""
    return printable(" ".join(text.split()))


def show(line: str = "") -> None:
    """Prints a printable line. It has no colors in a file, on a dumb terminal, or if NO_COLOR is set."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in DUMB_TERMINALS
    click.echo(line, color=False if is_plain else None)


def show_json(data: bytes) -> None:
    """Prints JSON on one line, with JSON escapes for characters that are not printable."""
    text = data.decode()
    if not text.isprintable():
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    click.echo(text)


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints rows below headings in aligned columns. States are colored."""
    table = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(cell_width(row[column]) for row in table) for column in range(len(headings))]
    for row in table:
        cells = [
            paint(cell) + " " * (width - cell_width(cell)) for cell, width in zip(row, widths, strict=True)
        ]
        show("  ".join(cells).rstrip())


def show_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Prints names and values, one pair on each line."""
    pairs = [(printable(name), printable(value)) for name, value in fields]
    width = max(cell_width(name) for name, _ in pairs)
    for name, value in pairs:
        show(f"{name}{' ' * (width - cell_width(name))}  {paint(value)}".rstrip())


def cell_width(text: str) -> int:
    """Returns the width of a printable text in terminal columns."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def paint(text: str) -> str:
    """Colors a text that is the name of a state. Returns other texts unchanged."""
    color = _COLORS.get(text)
    return click.style(text, fg=color) if color else text


def state_name(state: int) -> str:
    """Returns the name of a state, or the number of a state that only newer servers know."""
    try:
        return State(state).name
    except ValueError:
        return str(state)


def value_text(value: object) -> str:
    """Returns the value of an arg: text as it is, anything else as JSON."""
    plain = from_value(value) if isinstance(value, Value) else value
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def time_text(time: Timestamp | int) -> str:
    """Returns a time as local time.

    Args:
        time: A timestamp, or nanoseconds since the Unix epoch. Zero: the text is empty.
    """
    try:
        if isinstance(time, int):
            return f"{datetime.fromtimestamp(time // _SECOND).astimezone():%Y-%m-%d %H:%M:%S}" if time else ""
        if not time.seconds and not time.nanos:
            return ""
        return f"{time.ToDatetime(UTC).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # The calendar does not have this time.
        return "?"


def span_text(nanoseconds: int) -> str:
    """Returns a duration with few digits, for example "35ms", "1.5s" or "2m10s"."""
    if nanoseconds <= 0:
        return "0s"
    unit = next(
        (
            unit
            for limit, unit in ((_SECOND // 1000, 1000), (_SECOND, 10**6), (10 * _SECOND, 10**8))
            if nanoseconds < limit
        ),
        _SECOND,
    )
    return format_duration(nanoseconds // unit * unit)
