"""The output of `spinc`: lines and JSON, without characters that control a terminal."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import click
from google.protobuf.struct_pb2 import Value

from spincycle_grpc.state import State
from spincycle_grpc.structs import from_value

_COLORS = {"COMPLETE": "green", "FAIL": "red", "STOPPED": "yellow", "RUNNING": "cyan", "SUSPENDED": "magenta"}
COLOR = re.compile(r"(\x1b\[[0-9;:]*m)")
"""An escape sequence that only changes the colors of a terminal."""

DUMB_TERMINALS = ("dumb", "unknown")
"""The values of TERM for terminals without colors and without a cursor that moves."""


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


def plain_lines(text: str) -> list[str]:
    """Returns the lines of a job's text, printable, without colors and without text that was overwritten."""
    lines = COLOR.sub("", text).rstrip().replace("\r\n", "\n").split("\n") if text.strip() else []
    return [printable(line.rpartition("\r")[2].expandtabs()).rstrip() for line in lines]


def one_line(text: str) -> str:
    """Returns printable text on one line, with single spaces for all white space."""
    return printable(" ".join(text.split()))


def plain_line(text: str) -> str:
    """Returns a job's text, printable and without colors, on one line."""
    return one_line(COLOR.sub("", text))


def show(line: str = "") -> None:
    """Prints a printable line. It has no colors in a file, on a dumb terminal, or if NO_COLOR is set."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in DUMB_TERMINALS
    click.echo(line, color=False if is_plain else None)


def note(text: str) -> None:
    """Prints a sentence about the command to standard error, because standard output may go to a program."""
    click.echo(f"spinc: {printable(text)}", err=True)


def show_json(data: bytes) -> None:
    """Prints JSON on one line, with JSON escapes for characters that are not printable."""
    text = data.decode()
    if not text.isprintable():
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    click.echo(text)


def show_object(fields: Mapping[str, Any]) -> None:
    """Prints a JSON object on one line."""
    show_json(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())


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
