"""A transaction that sends its changes together, in one round trip.

Reads are sent at once, through SQLAlchemy. Changes of rows (`RowStatement`) are collected and sent before the
next read or the commit: on MySQL as many statements in one packet, on PostgreSQL through a pipeline, and on
SQLite one after the other. Each statement is compiled once per dialect.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import ClauseElement, Insert, Update
from sqlalchemy.engine import Connection, CursorResult, Dialect

from spincycle_server.database.literals import LiteralRow, processor_of
from spincycle_server.database.troubles import too_large_to_store

MAX_PACKET = 1024 * 1024
"""The maximum length of one packet of statements in characters, unless a single row is longer."""

MAX_PACKET_KEY = "spincycle.max_packet"
"""The place in `Connection.info` of the largest packet that MariaDB or MySQL takes, in bytes."""

MAX_ROW = 8 * 1024 * 1024
"""The maximum size in bytes of a row whose values could be written in parts instead."""

MAX_JOINED = 64
"""How many rows one UPDATE changes at most. MySQL compares the key of each row with half of them."""

_STATEMENT = 16 * 1024
"""More bytes than a statement has without its long values."""

_SHARE_OF_CHARACTERS = 5
"""Bytes that a character of a packet with many statements may take, with the separators."""


class RowStatement:
    """A statement that changes one row for each set of values.

    Args:
        make: Returns the statement for the name of a dialect. Its parameters are named. An INSERT without
            values has one parameter for each column.
        key: The parameter that is the primary key of the row, if the statement is an UPDATE with no other
            condition. MySQL then changes up to `MAX_JOINED` rows with one statement, so their keys must
            differ. "" for other statements.
    """

    def __init__(self, make: Callable[[str], Insert | Update], *, key: str = "") -> None:
        self._make = make
        self._key = key
        self._compiled: dict[str, _Compiled] = {}

    def for_dialect(self, dialect: Dialect) -> _Compiled:
        """Returns the statement, compiled for a dialect."""
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compile_ = _CompiledUpdate if self._key and dialect.name == "mysql" else _Compiled
            compiled = self._compiled[dialect.name] = compile_(self._make(dialect.name), dialect)
        return compiled


class _Compiled:
    """The text of a statement, and how to write its values.

    Attributes:
        text: The statement with the driver's placeholders.
    """

    def __init__(self, statement: Insert | Update, dialect: Dialect) -> None:
        self.text, compiled = positional_text(statement, dialect)
        names: Sequence[str] = compiled.positiontup
        self._values: Callable[[Mapping[str, Any]], tuple[Any, ...]] = (
            itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)
        )
        types = [compiled.binds[name].type for name in names]
        self._processors = [processor_of(kind, dialect) for kind in types]
        self._literals = LiteralRow(types, dialect).literals
        self._is_insert = isinstance(statement, Insert)
        self._head, self._row, self._tail = "", self.text, ""
        if self._is_insert:
            head, _, rest = self.text.partition(" VALUES ")
            self._head, self._row, self._tail = f"{head} VALUES ", *row_and_tail(rest)

    def parameters(self, row: Mapping[str, Any]) -> list[Any]:
        """Returns the values of a row as parameters for the driver."""
        return [
            value if process is None else process(value)
            for process, value in zip(self._processors, self._values(row), strict=True)
        ]

    def texts(self, rows: Iterable[Mapping[str, Any]], longest: int = MAX_PACKET) -> Iterable[str]:
        """Yields statements for some rows as MySQL text that includes the values.

        Args:
            rows: The values of each row.
            longest: The length of a statement with several rows, in characters.
        """
        parts: list[str] = []
        length = 0
        for row in rows:
            part = self._row % self._literals(self._values(row))
            if not self._is_insert:
                yield part
                continue
            if parts and length + len(part) > longest:
                yield self._head + ",".join(parts) + self._tail
                parts, length = [], 0
            parts.append(part)
            length += len(part)
        if parts:
            yield self._head + ",".join(parts) + self._tail


class _CompiledUpdate(_Compiled):
    """An UPDATE that MySQL runs once for many rows. An UPDATE for each row takes twice the time."""

    def __init__(self, statement: Insert | Update, dialect: Dialect) -> None:
        super().__init__(statement, dialect)
        assignments, _, condition = self.text.partition(" WHERE ")
        # Without the hint, a small table could be read as a whole, and rows of other transactions be locked.
        update, _, assignments = assignments.partition(" SET ")
        pieces = f"{update} FORCE INDEX (PRIMARY) SET {assignments}".split("%s")
        self._pieces = [piece.replace("%%", "%") for piece in pieces]
        self._key = condition.removesuffix(" = %s")

    def texts(self, rows: Iterable[Mapping[str, Any]], longest: int = MAX_PACKET) -> Iterable[str]:
        """Yields statements for some rows as MySQL text that includes the values."""
        written = [self._literals(self._values(row)) for row in rows]
        for start in range(0, len(written), MAX_JOINED):
            yield from self._within(longest, written[start : start + MAX_JOINED])

    def _within(self, longest: int, rows: Sequence[tuple[Any, ...]]) -> Iterator[str]:
        """Yields statements for rows, which are not longer than they may be unless they change one row."""
        text = self._joined(rows)
        if len(text) <= longest or len(rows) == 1:
            yield text
            return
        middle = len(rows) // 2
        yield from self._within(longest, rows[:middle])
        yield from self._within(longest, rows[middle:])

    def _joined(self, rows: Sequence[tuple[Any, ...]]) -> str:
        """Returns the statement for rows. A column with one value in all rows needs no choice by the key."""
        if len(rows) == 1:
            return self.text % rows[0]
        *columns, keys = zip(*rows, strict=True)
        parts: list[str] = []
        for piece, values in zip(self._pieces, columns, strict=False):
            parts.append(piece)
            if values.count(values[0]) == len(values):
                parts.append(str(values[0]))
            else:
                choices = " ".join(
                    [f"WHEN {key} THEN {value}" for key, value in zip(keys, values, strict=True)]
                )
                parts.append(f"CASE {self._key} {choices} END")
        return f"{''.join(parts)}{self._pieces[-1]} WHERE {self._key} IN ({','.join(map(str, keys))})"


_Changes: TypeAlias = Sequence[tuple[_Compiled, Sequence[Mapping[str, Any]]]]


class Transaction:
    """An open transaction.

    Args:
        connection: The connection, on which the transaction is open.
        stamp: The stamp of the rows that it changes; None if they get none.
        kept: The attribute `kept`.

    Attributes:
        kept: What others keep for the next attempt, by its type, if this one fails. None if nobody repeats
            the transaction.
        driver: The driver's connection.
        events: What the transaction does that is counted once it is committed. Who changes rows adds to it.
        parts: What others keep for the time of the transaction, by its type.
    """

    def __init__(
        self, connection: Connection, stamp: int | None = None, kept: dict[type[Any], Any] | None = None
    ) -> None:
        self.connection = connection
        self.stamp = stamp
        self.kept = kept
        self.events: list[Any] = []
        self.parts: dict[type[Any], Any] = {}
        self.driver: Any = connection.connection.driver_connection
        self._dialect = connection.dialect
        self._longest_packet: int | None = connection.info.get(MAX_PACKET_KEY)
        self._changes: list[tuple[_Compiled, Sequence[Mapping[str, Any]]]] = []

    @property
    def dialect_name(self) -> str:
        """The name of the dialect: sqlite, mysql or postgresql."""
        return self._dialect.name

    @property
    def longest_row(self) -> int:
        """The maximum size in bytes of a row whose values could be written in parts instead.

        It has room in a packet of the server, even if all its characters are escaped.
        """
        packet = self._longest_packet
        return MAX_ROW if packet is None else min(MAX_ROW, (packet - _STATEMENT) // 2)

    def execute(self, statement: Any, parameters: Any = None) -> CursorResult[Any]:
        """Sends the changes so far, then runs a statement."""
        self.flush()
        return self.connection.execute(statement, parameters)

    def change(
        self, statement: RowStatement, rows: Sequence[Mapping[str, Any]], *, first: bool = False
    ) -> None:
        """Collects changes, which are sent before the next statement or the commit.

        Args:
            statement: The statement to run for each row.
            rows: The values of each row.
            first: Whether to run it before the other collected changes.
        """
        if rows:
            place = 0 if first else len(self._changes)
            self._changes.insert(place, (statement.for_dialect(self._dialect), rows))

    def flush(self) -> None:
        """Sends all changes so far.

        Raises:
            Exception: The driver's error. The transaction must then be rolled back.
        """
        self._send(commits=False)

    def select(self, text: str) -> Sequence[Sequence[Any]]:
        """Sends the changes so far and a SELECT in one packet, on MySQL, if they fit. Returns its rows.

        Args:
            text: The SELECT with its values as literals.

        Raises:
            Exception: The driver's error. The transaction must then be rolled back.
        """
        changes, self._changes = self._changes, []
        rows: Sequence[Sequence[Any]] = _send_texts(self.driver, changes, self._longest(), read=text)
        return rows

    def commit(self) -> None:
        """Sends all changes so far and commits, in one round trip if there are changes.

        Raises:
            Exception: See `flush`. If the connection broke, the transaction may or may not be committed.
        """
        self._send(commits=True)
        self.connection.commit()  # Sends nothing if no transaction is open any more.

    def _longest(self) -> int:
        """Returns the limit of the server for packets, in bytes."""
        return MAX_PACKET if self._longest_packet is None else self._longest_packet

    def _send(self, *, commits: bool) -> None:
        changes, self._changes = self._changes, []
        if not changes:
            return
        driver = self.driver
        if self._dialect.name == "mysql":
            _send_texts(driver, changes, self._longest(), end="COMMIT" if commits else "")
            return
        # Always close the cursor: an open one makes SQLite keep the locks of a connection after it is closed.
        with contextlib.closing(driver.cursor()) as cursor:
            if self._dialect.name == "postgresql":
                with driver.pipeline():
                    _send_rows(cursor, changes)
                    if commits:
                        driver.commit()
            else:
                _send_rows(cursor, changes)


def _send_rows(cursor: Any, changes: _Changes) -> None:
    for compiled, rows in changes:
        cursor.executemany(compiled.text, [compiled.parameters(row) for row in rows])


def _send_texts(driver: Any, changes: _Changes, limit: int, *, read: str = "", end: str = "") -> Any:
    """Sends statements in packets of at most `limit` bytes, which is the limit of the server.

    Args:
        driver: The driver's connection.
        changes: The changes.
        limit: The limit.
        read: A SELECT after the changes; "" for none.
        end: A short statement in the last packet; "" for none. Each row leaves room for it.

    Returns:
        The rows of the last statement.
    """
    longest = min(MAX_PACKET, limit // _SHARE_OF_CHARACTERS)
    texts: list[str] = []
    length = 0
    changing = chain.from_iterable(compiled.texts(rows, longest) for compiled, rows in changes)
    for text in chain(changing, [read] if read else ()):
        if texts and length + len(text) > longest:
            _run_texts(driver, texts, limit)
            texts, length = [], 0
        texts.append(text)
        length += len(text)
    if end:
        texts.append(end)
    return _run_texts(driver, texts, limit)


def _run_texts(driver: Any, texts: Sequence[str], limit: int) -> Any:
    packet = packet_of(texts)
    if len(packet) >= limit:  # The first byte of a packet is the number of a command.
        raise too_large_to_store()
    return driver.run(packet)


def packet_of(texts: Iterable[str]) -> bytes:
    """Returns the packet of statements. Literals of blobs have surrogates for other bytes than ASCII."""
    return ";\n".join(texts).encode(errors="surrogateescape")


def positional_text(statement: ClauseElement, dialect: Dialect) -> tuple[str, Any]:
    """Returns the text of a statement with the driver's placeholders, and the compiled statement."""
    positional: Any = type(dialect)
    style = "qmark" if dialect.name == "sqlite" else "format"
    compiled: Any = statement.compile(dialect=positional(paramstyle=style))
    return compiled.string, compiled


def row_and_tail(rest: str) -> tuple[str, str]:
    """Splits a text that begins with a bracket, as after VALUES or IN, into what it encloses and the rest."""
    depth = 0
    for index, sign in enumerate(rest):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return rest[: index + 1], rest[index + 1 :]
    return rest, ""
