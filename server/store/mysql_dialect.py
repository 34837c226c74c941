"""SQLAlchemy's dialect of MySQL and MariaDB, quieter."""

from __future__ import annotations

from typing import Any

from pymysql.constants import SERVER_STATUS
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql


class MySqlDialect(MySQLDialect_pymysql):
    """SQLAlchemy's, but it sends no COMMIT where no transaction is open, as psycopg does."""

    supports_statement_cache = True

    def do_commit(self, dbapi_connection: Any) -> None:
        """Commits what is open."""
        if _is_in_transaction(dbapi_connection):
            super().do_commit(dbapi_connection)  # type: ignore[no-untyped-call]


def _is_in_transaction(connection: Any) -> bool:
    """Whether the server's last answer said that a transaction is open."""
    return bool(connection.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)
