"""SQLAlchemy's dialect of MySQL and MariaDB, with fewer round trips and a limit for SELECTs."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping
from typing import Any

from pymysql.constants import ER, SERVER_STATUS
from sqlalchemy import Connection
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.exc import DBAPIError

from spincycle_server.database.mysql_results import QuickConnection

_NO_TABLE = frozenset({ER.NO_SUCH_TABLE, ER.BAD_DB_ERROR})


class MySqlDialect(MySQLDialect_pymysql):
    """Sends COMMIT only if a transaction is open, as psycopg does.

    The execution option `statement_limit` is the number of seconds after which the server ends a SELECT.
    """

    supports_statement_cache = True

    def connect(self, *arguments: Any, **named: Any) -> Any:
        """Returns a new connection of the driver."""
        return _Connection(*arguments, **named)

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Executes a statement, with its `statement_limit` if it has one."""
        limit = context.execution_options.get("statement_limit") if context is not None else None
        if limit is not None:
            statement = bounded(statement, limit, is_mariadb=self.is_mariadb)
        cursor.execute(statement, parameters)

    def has_table(self, connection: Connection, table_name: str, schema: str | None = None, **_: Any) -> bool:
        """Whether a table or view exists.

        SQLAlchemy asks with DESCRIBE, for which MariaDB creates a temporary table. MariaDB 10.11.19 crashed
        at that, twice in 4,000 tests.
        """
        quote = self.identifier_preparer.quote_identifier
        name = ".".join(quote(part) for part in (schema or self.default_schema_name, table_name) if part)
        quiet = {"skip_user_error_events": True}
        try:
            statement = f"SELECT 1 FROM {name} LIMIT 0"  # noqa: S608 (the parts are quoted)
            connection.exec_driver_sql(statement, execution_options=quiet).close()
        except DBAPIError as error:
            if error.orig is not None and error.orig.args[0] in _NO_TABLE:
                return False
            raise
        return True

    def do_commit(self, dbapi_connection: Any) -> None:
        """Commits the open transaction, if there is one."""
        if _is_in_transaction(dbapi_connection):
            super().do_commit(dbapi_connection)  # type: ignore[no-untyped-call]


class _Connection(QuickConnection):
    """A connection that loads no CA certificates that it does not use.

    Without options for TLS, the driver encrypts if the server can, and checks no certificate. Yet it loads
    the certificates of all public CAs for each connection, which takes 30 ms of CPU time.
    """

    def _create_ssl_ctx(self, sslp: Mapping[str, Any] | ssl.SSLContext) -> ssl.SSLContext:
        if sslp:
            context: ssl.SSLContext = super()._create_ssl_ctx(sslp)  # type: ignore[misc]  # The stubs lack it.
            return context
        return _unverified_context()


@functools.cache
def _unverified_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _is_in_transaction(connection: Any) -> bool:
    """Whether a transaction is open, according to the server's last answer."""
    return bool(connection.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)


def bounded(select: str, seconds: float, *, is_mariadb: bool) -> str:
    """Returns a SELECT with a time limit, in the syntax of MariaDB or of MySQL."""
    if is_mariadb:
        return f"SET STATEMENT max_statement_time = {seconds:g} FOR {select}"
    hint = f"SELECT /*+ MAX_EXECUTION_TIME({round(seconds * 1000)}) */"
    return select.replace("SELECT", hint, 1)
