"""Adds the tables, columns and indexes that a database lacks.

MySQL commits each change of the schema separately. So a migration adds only what is missing. This way an
interrupted migration can be run again, and the database of an original Spin Cycle can be adopted.
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


_COLLATIONS = sa.text(
    "SELECT table_name, column_name, collation_name FROM information_schema.columns"
    " WHERE table_schema = DATABASE() AND collation_name IS NOT NULL"
)


@dataclass
class Present:
    """A database's schema: the columns of each table with their types, and the indexes with their columns.

    Attributes:
        collations: On MySQL, the collations of text columns, by table and column.
    """

    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    indexes: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    collations: dict[tuple[str, str], str] = field(default_factory=dict)


def look(connection: Connection) -> Present:
    """Reads the schema of a database."""
    inspector = sa.inspect(connection)
    present = Present()
    for table in inspector.get_table_names():
        present.columns[table] = {column["name"]: column["type"] for column in inspector.get_columns(table)}
        present.indexes[table] = {
            str(index["name"]): tuple(str(name) for name in index["column_names"])
            for index in inspector.get_indexes(table)
        }
    if connection.dialect.name == "mysql":
        for table, column, collation in connection.execute(_COLLATIONS):
            present.collations[table, column] = collation
    return present


def _present() -> Present:
    present: Present = context.config.attributes["present"]
    return present


def add_table(
    name: str,
    columns: Sequence[sa.Column[Any]],
    indexes: Mapping[str, Sequence[str]] | None = None,
    unique: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Adds a table if it is missing, and its missing indexes.

    An index on the same columns with another name counts as present. Ids that the database counts up are
    never reused.
    """
    present = _present()
    if name not in present.columns:
        op.create_table(name, *columns, **_MYSQL_TABLE, sqlite_autoincrement=True)
        present.columns[name] = {column.name: column.type for column in columns}
    add_indexes(name, indexes or {})
    add_indexes(name, unique or {}, unique=True)


def add_indexes(
    table: str,
    indexes: Mapping[str, Sequence[str | sa.TextClause]],
    *,
    unique: bool = False,
    where: str | None = None,
) -> None:
    """Adds each index, unless one with the same name or the same columns exists.

    Args:
        table: The table.
        indexes: The columns of each index.
        unique: Whether the indexes are unique.
        where: On PostgreSQL and SQLite, the condition on rows that are in the indexes; None for all rows.
    """
    partial: dict[str, Any] = (
        {} if where is None else {"postgresql_where": sa.text(where), "sqlite_where": sa.text(where)}
    )
    there = _present().indexes.setdefault(table, {})
    for index, on in indexes.items():
        columns = tuple(str(column) for column in on)
        if index not in there and columns not in there.values():
            op.create_index(index, table, list(on), unique=unique, **partial)
            there[index] = columns


def drop_index(table: str, index: str) -> None:
    """Drops an index if it exists."""
    if _present().indexes.setdefault(table, {}).pop(index, None) is not None:
        op.drop_index(index, table)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Adds a column if it is missing.

    On MySQL, a text has the character set utf8mb4. That of an original's tables lacks many characters.
    """
    columns = _present().columns[table]
    if column.name not in columns:
        if op.get_context().dialect.name == "mysql" and isinstance(column.type, sa.String):
            column.type = _utf8mb4(column.type)
        op.add_column(table, column)
        columns[column.name] = column.type


def _utf8mb4(narrow: sa.String) -> sa.types.TypeEngine[str]:
    how = {"charset": _MYSQL_TABLE["mysql_charset"], "collation": _MYSQL_TABLE["mysql_collate"]}
    if isinstance(narrow, sa.Text):
        return mysql.TEXT(**how)
    return mysql.VARCHAR(narrow.length, **how)


def widen_mysql(table: str, column: str, narrow: Sequence[type], wide: Any, *, nullable: bool) -> None:
    """Widens a column of a MySQL table if it has one of the narrow types."""
    if op.get_context().dialect.name != "mysql":
        return
    columns = _present().columns[table]
    if type(columns.get(column)) in narrow:
        op.alter_column(table, column, type_=wide, existing_nullable=nullable)
        columns[column] = wide


def widen_mysql_text(table: str, column: str, *, nullable: bool) -> None:
    """Widens a text column of a MySQL table from utf8mb3 to utf8mb4, with the same kind of comparison."""
    present = _present()
    collation = present.collations.get((table, column), "utf8mb4")
    if op.get_context().dialect.name != "mysql" or collation.startswith("utf8mb4"):
        return
    old = present.columns[table][column]
    how = collation.partition("_")[2]
    collation = f"utf8mb4_{how if how in _COMPARISONS else 'general_ci'}"
    if isinstance(old, sa.Text):
        wide: sa.types.TypeEngine[str] = mysql.TEXT(charset="utf8mb4", collation=collation)
    else:
        wide = mysql.VARCHAR(old.length, charset="utf8mb4", collation=collation)
    op.alter_column(table, column, type_=wide, existing_nullable=nullable)
    present.collations[table, column] = collation


_COMPARISONS = frozenset({"bin", "general_ci", "unicode_ci"})

BLOBS = (mysql.BLOB, sa.LargeBinary, sa.BLOB, mysql.MEDIUMBLOB)
"""The types that hold less than a LONGBLOB."""
