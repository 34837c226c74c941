"""The database's clock, which decides when leases expire, because the clocks of machines differ."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, bindparam, literal, literal_column, null, select
from sqlalchemy.engine import Connection

EXPRESSIONS: dict[str, ColumnElement[int]] = {
    "mysql": literal_column("CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)", BigInteger),
    "postgresql": literal_column(
        "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)", BigInteger
    ),
}
"""The time in microseconds since the Unix epoch, by dialect. SQLite uses this machine's clock instead."""


def now_expression(connection: Connection) -> ColumnElement[int]:
    """Returns an expression for the time in microseconds since the Unix epoch.

    For SQLite it is the time of this machine, the only one that uses the file.
    """
    expression: Any = EXPRESSIONS.get(connection.dialect.name)
    return literal(time.time_ns() // 1000, BigInteger) if expression is None else expression


def database_now(connection: Connection) -> int:
    """Returns the time in microseconds since the Unix epoch."""
    if connection.dialect.name not in EXPRESSIONS:
        return time.time_ns() // 1000
    return int(connection.execute(select(now_expression(connection))).scalar_one())


def now_or_parameter(dialect_name: str) -> ColumnElement[int]:
    """Returns the time for a statement that is compiled once: on SQLite the parameter `now`."""
    return EXPRESSIONS.get(dialect_name, bindparam("now", type_=BigInteger))


def now_column(dialect_name: str) -> ColumnElement[Any]:
    """Returns the column `now` of a SELECT that is compiled once. `now_of` reads it."""
    return EXPRESSIONS.get(dialect_name, null()).label("now")


def now_of(value: int | None) -> int:
    """Returns the time when a row was read, from its column `now`, which is NULL on SQLite."""
    return time.time_ns() // 1000 if value is None else value
