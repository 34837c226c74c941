"""What jobs write, as text for a terminal or a file, while they write it."""

from __future__ import annotations

import os
import re
import sys

from spincycle_grpc.cli.output import COLOR, printable

LONGEST_LINE = 64 * 1024
"""The number of characters of an unfinished line that are kept back at most."""

_INCOMPLETE = re.compile(r"(?:\r|\x1b(?:\[[0-9;:]{0,30})?)\Z")
_RESET = "\x1b[0m"


class LiveText:
    """The text of one stream of a try. It comes in pieces, which can end inside a line or a color.

    Args:
        is_stderr: Whether the text goes to stderr. Colors are kept if the text goes to a terminal.
        in_lines: Whether unfinished lines are kept back, because lines of several tries are mixed.
    """

    def __init__(self, *, is_stderr: bool, in_lines: bool) -> None:
        stream = sys.stderr if is_stderr else sys.stdout
        self._has_colors = stream.isatty() and not os.environ.get("NO_COLOR")
        self._in_lines = in_lines
        self._rest = ""

    def add(self, text: str) -> str:
        """Adds a piece. Returns what can be written now, without control characters."""
        text = self._rest + text
        if self._in_lines and len(text) <= LONGEST_LINE:
            end = text.rfind("\n") + 1
        else:
            incomplete = _INCOMPLETE.search(text)
            end = incomplete.start() if incomplete else len(text)
        self._rest = text[end:]
        return self._cleaned(text[:end])

    def end(self) -> str:
        """Returns what is left at the end of the try. A line that was kept back gets its newline."""
        rest, self._rest = self._rest, ""
        return self._cleaned(rest + "\n" if rest and self._in_lines else rest)

    def _cleaned(self, text: str) -> str:
        """Returns text whose only control characters are newlines, tabs and colors for a terminal."""
        parts = COLOR.split(text)
        parts[::2] = [_printable_text(part) for part in parts[::2]]
        if not self._has_colors:
            parts[1::2] = [""] * len(parts[1::2])
        return "".join(parts)


def prefixed(text: str, prefix: str) -> str:
    """Returns text whose lines all begin with a prefix. The colors of a line end with it."""
    lines = text.splitlines()
    return "".join(f"{prefix}{line}{_RESET if COLOR.search(line) else ''}\n" for line in lines)


def _printable_text(text: str) -> str:
    if text.isprintable():
        return text
    lines = (line.split("\t") for line in text.replace("\r\n", "\n").split("\n"))
    return "\n".join("\t".join(printable(part) for part in line) for line in lines)
