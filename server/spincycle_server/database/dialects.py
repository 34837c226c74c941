"""INSERT statements that skip existing rows."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import mysql, postgresql, sqlite


def insert_ignoring(dialect_name: str, table: Any) -> Any:
    """Returns an INSERT that skips rows whose key exists."""
    if dialect_name == "mysql":
        # Not INSERT IGNORE, because that truncates values that do not fit.
        first = next(iter(table.primary_key))
        return mysql.insert(table).on_duplicate_key_update({first.name: first})
    if dialect_name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()
