"""A SELECT of rows by their keys, which is compiled once, as `RowStatement` is for changes.

For such a statement, SQLAlchemy takes several times as long as the driver: it expands the list of keys each
time, and wraps the result.
"""

from __future__ import annotations

import contextlib
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import DBAPIError

from spincycle_server.database.literals import literal_of, processor_of
from spincycle_server.database.transaction import Transaction, packet_of, positional_text, row_and_tail
from spincycle_server.database.troubles import Trouble, trouble_of

_IN = " IN "


class KeyedRead:
    """A statement that reads the rows with some keys.

    Args:
        make: Returns the SELECT for the name of a dialect, without a condition and without parameters. Its
            columns have different names.
        key: The column of the keys.
    """

    def __init__(self, make: Callable[[str], Select[Any]], key: ColumnElement[Any]) -> None:
        self._make = make
        self._key = key
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, transaction: Transaction, keys: Sequence[Any]) -> list[dict[str, Any]]:
        """Sends the changes so far, and returns the rows as they are then, by the names of their columns.

        Raises:
            Exception: The driver's error. The transaction must then be rolled back.
        """
        if not keys:
            transaction.flush()
            return []
        compiled = self._for_dialect(transaction.connection.dialect)
        if transaction.dialect_name == "mysql":
            found = transaction.select(compiled.text(keys))
        else:
            transaction.flush()
            found = compiled.execute(transaction.driver, keys)
        names = compiled.names
        return [dict(zip(names, row, strict=True)) for row in compiled.converted(found)]

    def read(self, connection: Connection, keys: Sequence[Any]) -> list[Any]:
        """Returns the rows outside of a transaction, as tuples whose fields have the names of the columns.

        Args:
            connection: A connection on which no transaction is open. It is invalidated if it is broken.
            keys: The keys, at least one.

        Raises:
            Exception: The driver's error.
        """
        compiled = self._for_dialect(connection.dialect)
        try:
            driver: Any = connection.connection.driver_connection
            if connection.dialect.name == "mysql":
                found = driver.run(packet_of([compiled.text(keys)]))
            else:
                found = compiled.execute(driver, keys)
            return [*map(compiled.make_row, compiled.converted(found))]
        except Exception as error:
            if trouble_of(error) is Trouble.AWAY:
                _give_up(connection)
            raise

    def statement(self, dialect_name: str) -> Select[Any]:
        """Returns the SELECT of the row whose key is the parameter `key`."""
        return self._make(dialect_name).where(self._key.in_([bindparam("key", type_=self._key.type)]))

    def _for_dialect(self, dialect: Dialect) -> _Compiled:
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            statement = self.statement(dialect.name)
            compiled = self._compiled[dialect.name] = _Compiled(statement, self._key, dialect)
        return compiled


def _give_up(connection: Connection) -> None:
    """Invalidates a connection, and all others of its pool if it is broken.

    Otherwise each of these would fail a read after a restart of the database.
    """
    with contextlib.suppress(DBAPIError):
        connection.exec_driver_sql("SELECT 1")  # SQLAlchemy does not see errors of the driver itself.
    connection.invalidate()


class _Compiled:
    """The text of a statement for a dialect, and how to write its keys and to read its rows.

    Attributes:
        names: The names of the columns.
        make_row: Makes a tuple with fields of these names.
    """

    def __init__(self, statement: Select[Any], key: ColumnElement[Any], dialect: Dialect) -> None:
        text, _ = positional_text(statement, dialect)
        head, _, rest = text.partition(_IN)
        keys, self._tail = row_and_tail(rest)
        self._head = f"{head}{_IN}"
        self._place = keys[1:-1]
        self._process = processor_of(key.type, dialect)
        self._literal = literal_of(key.type, dialect)
        self.names = [column.name for column in statement.selected_columns]
        row_type: Any = namedtuple("_Row", self.names)  # type: ignore[misc]  # The names vary.
        self.make_row: Callable[[Sequence[Any]], Any] = row_type._make
        self._converters = [_converter(column, dialect) for column in statement.selected_columns]

    def text(self, keys: Sequence[Any]) -> str:
        """Returns the statement with the keys as literals of MySQL."""
        return self._with_places(len(keys)) % tuple(map(self._literal, keys))

    def execute(self, driver: Any, keys: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Executes the statement with the keys as parameters, and returns the driver's rows."""
        parameters = keys if self._process is None else [*map(self._process, keys)]
        # An open cursor makes SQLite keep the locks of a connection after it is closed.
        with contextlib.closing(driver.cursor()) as cursor:
            cursor.execute(self._with_places(len(keys)), parameters)
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
            return rows

    def converted(self, rows: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
        """Yields the values of each of the driver's rows as those of the columns' types."""
        converters = self._converters
        for row in rows:
            yield [
                value if convert is None else convert(value)
                for convert, value in zip(converters, row, strict=True)
            ]

    def _with_places(self, count: int) -> str:
        return f"{self._head}({', '.join([self._place] * count)}){self._tail}"


def _converter(column: ColumnElement[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """Returns the function that turns values of the driver into those of a column's type."""
    # Only types that are not in this program ask for the driver's own type.
    converter: Callable[[Any], Any] | None = column.type.dialect_impl(dialect).result_processor(dialect, None)
    return converter
