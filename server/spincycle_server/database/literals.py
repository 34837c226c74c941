"""Writes values into the text of statements: as literals for MySQL and MariaDB, as parameters for others."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

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
        return number_literal
    raise TypeError(f"values of type {kind!r} cannot be written as literals")


# Sessions of this program set a sql_mode without NO_BACKSLASH_ESCAPES, so a backslash escapes. Packets carry
# their length, so all other bytes may appear in a literal.


def _text_literal(value: str) -> str:
    if value.isalnum():
        return f"'{value}'"
    return f"'{_escaped(value)}'"


def _blob_literal(value: bytes) -> str:
    # Other bytes than ASCII become surrogates, which `_run_texts` turns back into the same bytes.
    return f"_binary'{_escaped(value.decode('ascii', 'surrogateescape'))}'"


def _escaped(value: str) -> str:
    value = value.replace("\\", "\\\\").replace("'", "\\'")
    return value.replace("\0", "\\0") if "\0" in value else value


def number_literal(value: int) -> str:
    """Returns the literal of a number."""
    return str(int(value))


def _time_literal(value: int) -> str:
    seconds, microseconds = divmod(value, 1_000_000)
    return f"'{_second(seconds)}.{microseconds:06d}'"


@functools.lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return str(_EPOCH + timedelta(seconds=seconds))
