"""What a database has already, and how to add what it lacks.

MySQL commits each change of its schema by itself. So that a migration that was interrupted can be run
again, and so that a database that the original filled can be taken over, a migration adds what is
not there yet and leaves the rest alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection

_MYSQL_TABLE: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


@dataclass
class Present:
    """The tables of a database: for each its columns with their types, and its indexes."""

    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    indexes: dict[str, set[str]] = field(default_factory=dict)


def look(connection: Connection) -> Present:
    """Returns what a database has."""
    inspector = sa.inspect(connection)
    present = Present()
    for table in inspector.get_table_names():
        present.columns[table] = {column["name"]: column["type"] for column in inspector.get_columns(table)}
        present.indexes[table] = {str(index["name"]) for index in inspector.get_indexes(table)}
    return present


def _present() -> Present:
    present: Present = context.config.attributes["present"]
    return present


def add_table(
    name: str, columns: Sequence[sa.Column[Any]], indexes: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Adds a table with its indexes, by name, if there is none of its name."""
    present = _present()
    if name not in present.columns:
        op.create_table(name, *columns, **_MYSQL_TABLE)
        present.columns[name] = {column.name: column.type for column in columns}
    add_indexes(name, indexes or {})


def add_indexes(table: str, indexes: Mapping[str, Sequence[str | sa.TextClause]]) -> None:
    """Adds indexes by name, if the table has none of their names."""
    present = _present().indexes.setdefault(table, set())
    for index, on in indexes.items():
        if index not in present:
            op.create_index(index, table, list(on))
            present.add(index)


def drop_index(table: str, index: str) -> None:
    """Drops an index, if it is there."""
    present = _present().indexes.setdefault(table, set())
    if index in present:
        op.drop_index(index, table)
        present.discard(index)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Adds a column, if the table has none of its name."""
    columns = _present().columns[table]
    if column.name not in columns:
        op.add_column(table, column)
        columns[column.name] = column.type


def widen_mysql(table: str, column: str, narrow: Sequence[type], wide: Any, *, nullable: bool) -> None:
    """Gives a column of a MySQL table a larger type, if it has one of the narrow ones."""
    if op.get_context().dialect.name != "mysql":
        return
    columns = _present().columns[table]
    if type(columns.get(column)) in narrow:
        op.alter_column(table, column, type_=wide, existing_nullable=nullable)
        columns[column] = wide


BLOBS = (mysql.BLOB, sa.LargeBinary, sa.BLOB, mysql.MEDIUMBLOB)
"""Types that hold less than a LONGBLOB."""
