"""The database's clock: the one that decides when leases end, since clocks of machines differ."""

from __future__ import annotations

import time

from sqlalchemy import text
from sqlalchemy.engine import Connection

_QUERIES = {
    "mysql": text("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"),
    "mariadb": text("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"),
    "postgresql": text("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"),
}


def database_now(connection: Connection) -> int:
    """Returns the time in microseconds since the Unix epoch.

    An SQLite file is used on one machine, whose clock is the database's.
    """
    query = _QUERIES.get(connection.dialect.name)
    if query is None:
        return time.time_ns() // 1000
    return int(connection.execute(query).scalar_one())
