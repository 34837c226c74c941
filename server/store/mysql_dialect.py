"""SQLAlchemy's dialect of MySQL and MariaDB, quieter."""

from __future__ import annotations

from typing import Any

from pymysql.constants import SERVER_STATUS
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql


class MySqlDialect(MySQLDialect_pymysql):
    """SQLAlchemy's, but it sends no COMMIT where no transaction is open, as psycopg does.

    The execution option `statement_limit` is the seconds after which the server ends a SELECT.
    """

    supports_statement_cache = True

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Executes a statement."""
        limit = context.execution_options.get("statement_limit") if context is not None else None
        if limit is not None:
            statement = bounded(statement, limit, is_mariadb=self.is_mariadb)
        cursor.execute(statement, parameters)

    def do_commit(self, dbapi_connection: Any) -> None:
        """Commits what is open."""
        if _is_in_transaction(dbapi_connection):
            super().do_commit(dbapi_connection)  # type: ignore[no-untyped-call]


def _is_in_transaction(connection: Any) -> bool:
    """Whether the server's last answer said that a transaction is open."""
    return bool(connection.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)


def bounded(select: str, seconds: float, *, is_mariadb: bool) -> str:
    """Returns a SELECT that the server ends by itself after so long: each of the two has its own way."""
    if is_mariadb:
        return f"SET STATEMENT max_statement_time = {seconds:g} FOR {select}"
    hint = f"SELECT /*+ MAX_EXECUTION_TIME({round(seconds * 1000)}) */"
    return select.replace("SELECT", hint, 1)
