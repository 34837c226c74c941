"""Writes values into the text of statements: as literals for MySQL and MariaDB, as parameters for others."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import Boolean, Integer, LargeBinary, String
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from spincycle_server.database.types import Ascii, BoundedText, Microseconds, StateNumber

_EPOCH = datetime(1970, 1, 1)  # in UTC, like the session


def processor_of(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """Returns the function that turns values of a type into parameters; None if they are as they are."""
    processor: Callable[[Any], Any] | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return processor


def literal_of(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], str]:
    """Returns the function that writes values of a type as MySQL literals, except NULL.

    Raises:
        TypeError: Such values cannot be written.
    """
    if isinstance(kind, Ascii):
        return _text_literal
    if isinstance(kind, Microseconds):
        return _time_literal
    if isinstance(kind, LargeBinary):
        return _blob_literal
    if isinstance(kind, BoundedText):
        process = processor_of(kind, dialect)
        return _text_literal if process is None else lambda value: _text_literal(process(value))
    if isinstance(kind, String):
        return _text_literal
    if isinstance(kind, Integer | Boolean | StateNumber):
        return _number_literal
    raise TypeError(f"values of type {kind!r} cannot be written as literals")


_Column: TypeAlias = tuple[Any, int, Callable[[Any], str]]
"""The class of the values that need no function, the longest of these, and the function for the others.

A subclass may have another text.
"""


class LiteralRow:
    """Writes the values of rows as MySQL literals.

    It looks once at all texts of a row. If nothing in them needs to be escaped, as nearly always, they are
    literals with quotes around them.

    Args:
        types: The types of the values.
        dialect: The dialect of MySQL.
    """

    def __init__(self, types: Sequence[TypeEngine[Any]], dialect: Dialect) -> None:
        writers = [literal_of(kind, dialect) for kind in types]
        lengths = [_plain_length(kind) for kind in types]
        places = [place for place, length in enumerate(lengths) if length is not None]
        self._texts: Callable[[Sequence[Any]], Any] = itemgetter(*places) if places else lambda _: ()
        self._all_texts = "%s" * len(places)
        self._columns: list[_Column] = [
            (int if write is _number_literal else None, 0, write) for write in writers
        ]
        self._plain_columns: list[_Column] = [
            column if length is None else (str, length, column[2])
            for column, length in zip(self._columns, lengths, strict=True)
        ]

    def literals(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Returns the literals of the values of a row."""
        is_plain = _needs_escape(self._all_texts % self._texts(values)) is None
        return tuple(
            [
                "NULL"
                if value is None
                else write(value)
                if value.__class__ is not kind
                else value
                if kind is int
                else f"'{value}'"
                if len(value) <= longest
                else write(value)
                for (kind, longest, write), value in zip(
                    self._plain_columns if is_plain else self._columns, values, strict=True
                )
            ]
        )


def _plain_length(kind: TypeEngine[Any]) -> int | None:
    """Returns up to which length a text of a type is written as it is; None if the type has no texts."""
    if isinstance(kind, BoundedText):
        return kind.fits
    return sys.maxsize if isinstance(kind, Ascii | String) else None


# Sessions of this program set a sql_mode without NO_BACKSLASH_ESCAPES, so a backslash escapes. Packets carry
# their length, so all other bytes may appear in a literal.


_needs_escape = re.compile(r"[\\'\0]").search


def _text_literal(value: str) -> str:
    return f"'{_escaped(value)}'"


def _blob_literal(value: bytes) -> str:
    if not value:
        return "_binary''"
    # Other bytes than ASCII become surrogates, which `packet_of` turns back into the same bytes.
    return f"_binary'{_escaped(value.decode('ascii', 'surrogateescape'))}'"


def _escaped(value: str) -> str:
    value = value.replace("\\", "\\\\").replace("'", "\\'")
    return value.replace("\0", "\\0") if "\0" in value else value


def _number_literal(value: int) -> str:
    return f"{int(value)}"


def _time_literal(value: int) -> str:
    seconds, microseconds = divmod(value, 1_000_000)
    return f"'{_second(seconds)}.{microseconds:06d}'"


@functools.lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return str(_EPOCH + timedelta(seconds=seconds))
