"""The database's clock, which decides when leases expire, because the clocks of machines differ."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, literal, literal_column, select
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
