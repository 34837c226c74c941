"""A SELECT of rows by their keys, which is compiled once, as `RowStatement` is for changes.

For such a statement, SQLAlchemy takes several times as long as the driver: it expands the list of keys each
time, and wraps the result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam
from sqlalchemy.engine import Dialect

from spincycle_server.database.literals import literal_of, processor_of
from spincycle_server.database.transaction import Transaction, positional_text, row_and_tail

_IN = " IN "


class KeyedRead:
    """A statement that reads the rows with some keys.

    Args:
        statement: The SELECT, without a condition. Its columns have different names.
        key: The column of the keys.
    """

    def __init__(self, statement: Select[Any], key: ColumnElement[Any]) -> None:
        self._statement = statement.where(key.in_([bindparam("key", type_=key.type)]))
        self._key = key
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, transaction: Transaction, keys: Sequence[Any]) -> list[dict[str, Any]]:
        """Sends the changes so far, and returns the rows as they are then, by the names of their columns.

        Raises:
            Exception: The driver's error. The transaction must then be rolled back.
        """
        transaction.flush()
        if not keys:
            return []
        dialect = transaction.connection.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = _Compiled(self._statement, self._key, dialect)
        return compiled.rows(transaction.driver, keys)


class _Compiled:
    """The text of a statement for a dialect, and how to write its keys and to read its rows."""

    def __init__(self, statement: Select[Any], key: ColumnElement[Any], dialect: Dialect) -> None:
        text, _ = positional_text(statement, dialect)
        head, _, rest = text.partition(_IN)
        keys, self._tail = row_and_tail(rest)
        self._head = f"{head}{_IN}"
        self._place = keys[1:-1]
        self._process = processor_of(key.type, dialect)
        self._literal = literal_of(key.type, dialect)
        self._names = [column.name for column in statement.selected_columns]
        self._converters = [_converter(column, dialect) for column in statement.selected_columns]
        self._reads: Callable[[Any, Sequence[Any]], Sequence[Sequence[Any]]] = (
            self._read_by_text if dialect.name == "mysql" else self._read_by_cursor
        )

    def rows(self, driver: Any, keys: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {
                name: value if convert is None else convert(value)
                for name, convert, value in zip(self._names, self._converters, row, strict=True)
            }
            for row in self._reads(driver, keys)
        ]

    def _text(self, count: int) -> str:
        return f"{self._head}({', '.join([self._place] * count)}){self._tail}"

    def _read_by_text(self, driver: Any, keys: Sequence[Any]) -> Sequence[Sequence[Any]]:
        text = self._text(len(keys)) % tuple(map(self._literal, keys))
        rows: Sequence[Sequence[Any]] = driver.rows(text.encode())
        return rows

    def _read_by_cursor(self, driver: Any, keys: Sequence[Any]) -> Sequence[Sequence[Any]]:
        parameters = keys if self._process is None else [*map(self._process, keys)]
        # An open cursor makes SQLite keep the locks of a connection after it is closed.
        with contextlib.closing(driver.cursor()) as cursor:
            cursor.execute(self._text(len(keys)), parameters)
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
            return rows


def _converter(column: ColumnElement[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """Returns the function that turns values of the driver into those of a column's type."""
    # Only types that are not in this program ask for the driver's own type.
    converter: Callable[[Any], Any] | None = column.type.dialect_impl(dialect).result_processor(dialect, None)
    return converter
