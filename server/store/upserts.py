"""Inserting what may be there already."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection


def insert_ignoring(connection: Connection, table: Any) -> Any:
    """Returns an INSERT that leaves rows alone whose key is there."""
    name = connection.dialect.name
    if name == "mysql":
        # Not INSERT IGNORE, which would cut values that do not fit.
        first = next(iter(table.primary_key))
        return mysql.insert(table).on_duplicate_key_update({first.name: first})
    if name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()
