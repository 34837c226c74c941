"""Tables and fields of `spinc`. A table is as wide as the terminal; in a file or a pipe, nothing is cut."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from spincycle_grpc.cli.cutting import cell_width, cut_path, cut_text
from spincycle_grpc.cli.output import paint, printable, show

_GAP = 2


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: The heading.
        cells: One text for each row.
        narrow: The column to show instead on a narrow terminal.
        may_drop: Whether a narrow terminal does not show the column.
        least: The width to which a narrow terminal cuts the column. 0: never cut.
        keeps_end: Whether the beginning is cut off instead of the end.
        has_paths: Whether the cells are paths of jobs, in which the host and the job stay readable longest.
        wraps: Whether longer cells continue on the next line, instead of being cut.
    """

    heading: str
    cells: Sequence[str]
    narrow: Column | None = None
    may_drop: bool = False
    least: int = 0
    keeps_end: bool = False
    has_paths: bool = False
    wraps: bool = False

    @property
    def width(self) -> int:
        """The width of the widest cell in terminal columns."""
        return max(cell_width(text) for cell in (self.heading, *self.cells) for text in cell.split("\n"))

    def cut(self, width: int) -> Column:
        """Returns the column with no line of a cell wider than `width`."""
        if self.wraps:
            return replace(self, cells=["\n".join(textwrap.wrap(cell, width)) for cell in self.cells])
        if self.has_paths:
            cells = [cut_path(cell, width) for cell in self.cells]
        else:
            cells = [cut_text(cell, width, keeps_end=self.keeps_end) for cell in self.cells]
        return replace(self, heading=cut_text(self.heading, width), cells=cells)


def show_table(columns: Iterable[Column], narrow_first: Sequence[str] = ()) -> None:
    """Prints rows below headings in aligned columns. States are colored.

    Args:
        columns: The columns, with equally many cells. Their texts need not be printable.
        narrow_first: On a narrow terminal, the headings of the columns that become narrow or are dropped,
            until the table fits. Then the widest columns are cut.
    """
    shown = [replace(column, cells=[printable(cell) for cell in column.cells]) for column in columns]
    if sys.stdout.isatty():
        shown = _fitted(shown, narrow_first, terminal_width())
    widths = [column.width for column in shown]
    for row in zip(*([column.heading, *column.cells] for column in shown), strict=True):
        for line in zip_longest(*(cell.split("\n") for cell in row), fillvalue=""):
            cells = [
                paint(cell) + " " * (room - cell_width(cell)) for cell, room in zip(line, widths, strict=True)
            ]
            show((" " * _GAP).join(cells).rstrip())


def show_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Prints names and values, one pair on each line. On a terminal, long values are wrapped."""
    pairs = [(printable(name), printable(value)) for name, value in fields]
    width = max(cell_width(name) for name, _ in pairs)
    for name, value in pairs:
        head = f"{name}{' ' * (width - cell_width(name) + _GAP)}"
        for number, line in enumerate(_wrapped(value, width + _GAP)):
            show(f"{head if not number else ' ' * (width + _GAP)}{paint(line)}".rstrip())


def terminal_width() -> int:
    """Returns the number of columns of the terminal, or 80 if it does not say."""
    return shutil.get_terminal_size().columns


def _fitted(columns: list[Column], narrow_first: Sequence[str], room: int) -> list[Column]:
    for heading in narrow_first:
        if _total(columns) <= room:
            break
        columns = [
            column.narrow or column if column.heading == heading else column
            for column in columns
            if column.heading != heading or not column.may_drop
        ]
    excess = _total(columns) - room
    widths = [column.width for column in columns]
    while excess > 0:
        can_cut = [place for place, column in enumerate(columns) if 0 < column.least < widths[place]]
        if not can_cut:
            break
        widths[max(can_cut, key=widths.__getitem__)] -= 1
        excess -= 1
    return [
        column.cut(width) if column.least else column for column, width in zip(columns, widths, strict=True)
    ]


def _total(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1)


def _wrapped(text: str, indent: int) -> list[str]:
    """Returns the lines of a text on a terminal that begins `indent` columns further right."""
    room = terminal_width() - indent
    if not sys.stdout.isatty() or cell_width(text) <= room or room < 20:
        return [text]
    return textwrap.wrap(text, room, break_on_hyphens=False)
