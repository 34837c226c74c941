"""How `spinc` writes: tables, fields and JSON, with nothing in them that a terminal would act on."""

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
_SECOND = 1_000_000_000


def printable(text: str) -> str:
    """Returns text on one line, with an escape for each character that cannot be seen."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def printable_lines(text: str) -> list[str]:
    """Returns the lines of a text, printable; their tabs are kept."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return ["\t".join(printable(part) for part in line.removesuffix("\r").split("\t")) for line in lines]


def one_line(text: str) -> str:
    """Returns text printable and on one line, its white space made single spaces."""
    return printable(" ".join(text.split()))


def show(line: str = "") -> None:
    """Prints a line, which must be printable but for colors; these only at a terminal that may have them."""
    click.echo(line, color=False if os.environ.get("NO_COLOR") else None)


def show_json(data: bytes) -> None:
    """Prints JSON on a line, with the escapes of JSON for what cannot be seen."""
    text = data.decode()
    if not text.isprintable():
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    click.echo(text)


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints rows below headings, in columns as wide as they need to be; states in their colors."""
    table = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(cell_width(row[column]) for row in table) for column in range(len(headings))]
    for row in table:
        cells = [
            paint(cell) + " " * (width - cell_width(cell)) for cell, width in zip(row, widths, strict=True)
        ]
        show("  ".join(cells).rstrip())


def show_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Prints names and values, a line for each."""
    pairs = [(printable(name), printable(value)) for name, value in fields]
    width = max(cell_width(name) for name, _ in pairs)
    for name, value in pairs:
        show(f"{name}{' ' * (width - cell_width(name))}  {paint(value)}".rstrip())


def cell_width(text: str) -> int:
    """Returns how many columns of a terminal a printable text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def paint(text: str) -> str:
    """Returns the name of a state in its color, and any other text as it is."""
    color = _COLORS.get(text)
    return click.style(text, fg=color) if color else text


def state_name(state: int) -> str:
    """Returns the name of a state; of one that a newer server has, its number."""
    try:
        return State(state).name
    except ValueError:
        return str(state)


def value_text(value: object) -> str:
    """Returns a value of an arg as people write it: a text as it is, anything else as JSON."""
    plain = from_value(value) if isinstance(value, Value) else value
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def time_text(time: Timestamp | int) -> str:
    """Returns a time, also one in nanoseconds since the Unix epoch, as local time; nothing for none."""
    try:
        if isinstance(time, int):
            return f"{datetime.fromtimestamp(time // _SECOND).astimezone():%Y-%m-%d %H:%M:%S}" if time else ""
        if not time.seconds and not time.nanos:
            return ""
        return f"{time.ToDatetime(UTC).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # No time that a calendar has.
        return "?"


def span_text(nanoseconds: int) -> str:
    """Returns how long something took, as exactly as people want it: "35ms", "1.5s", "2m10s"."""
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
