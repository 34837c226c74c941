"""Connecting to the database: SQLite, MySQL and MariaDB, or PostgreSQL."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.dialects import registry
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from spincycle_grpc.errors import InvalidArgumentError

_DRIVERS = {
    "sqlite": "sqlite",
    "mysql": "mysql+spincycle",
    "mariadb": "mysql+spincycle",
    "postgresql": "postgresql+psycopg",
}
# As the protocol has them; the driver is loaded only where it is used.
_FOUND_ROWS = 1 << 1
_MULTI_STATEMENTS = 1 << 16
_BEFORE_THE_DRIVER = 0.5
"""Seconds for the word that a statement was ended to reach the driver, before it gives up the connection."""

_FORMS = "sqlite:///PATH, mysql://USER:PASSWORD@HOST/DATABASE or postgresql://USER:PASSWORD@HOST/DATABASE"


registry.register("mysql.spincycle", "spincycle_server.database.mysql_dialect", "MySqlDialect")


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """How a database is connected to.

    Attributes:
        timeout: Seconds that a statement waits for another's lock or its answer, and for a connection.
            Troubles that pass are waited out for as long.
        connections: Connections that read, and threads that use them. Up to three more write and look.
        cert_file: The client's certificate for MySQL; "": none.
        key_file: Its key.
        ca_file: Who must have signed the server's certificate; "": TLS only if the URL asks for it.
    """

    timeout: float = 5.0
    connections: int = 4
    cert_file: str = ""
    key_file: str = ""
    ca_file: str = ""


def parse_url(text: str) -> URL:
    """Returns the URL of a database, with the driver that is used for it.

    Raises:
        InvalidArgumentError: It is none, or of a database that is not supported. The message does not
            show it, since it may hold a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise InvalidArgumentError(
            f"the database must be given as {_FORMS}", reason="BAD_DATABASE_URL"
        ) from error
    kind = url.get_backend_name()
    if kind not in _DRIVERS:
        raise InvalidArgumentError(
            f"databases of kind {kind!r} are not supported: use {_FORMS}", reason="BAD_DATABASE_URL"
        )
    if kind == "sqlite" and (not url.database or url.database == ":memory:"):
        raise InvalidArgumentError(
            "an SQLite database must be a file: use sqlite:///PATH", reason="BAD_DATABASE_URL"
        )
    if kind != "sqlite" and not url.database:
        raise InvalidArgumentError(
            f"the URL of the database names no database: use {_FORMS}", reason="BAD_DATABASE_URL"
        )
    return url.set(drivername=_DRIVERS[kind])


def make_engine(
    url: URL, options: DatabaseOptions, *, connections: int, reads: bool, takes_long: bool = False
) -> Engine:
    """Returns an engine with a fixed number of connections, which are opened when they are needed.

    Args:
        url: The database, from `parse_url`.
        options: How to connect.
        connections: As many are open at most.
        reads: Whether it is for single statements that read; if not, for transactions.
        takes_long: Whether it is for commands of operators, as migrations: their statements may take as
            long as they need, but wait no longer than others for locks, since others wait behind them.
    """
    kind = url.get_backend_name()
    settings: dict[str, Any] = {}
    if kind != "sqlite":
        settings["isolation_level"] = "AUTOCOMMIT" if reads else "READ COMMITTED"
        settings["skip_autocommit_rollback"] = reads
    if kind == "mysql" and not reads:
        # What is left open is rolled back where it is left; a second ROLLBACK would be a round trip more.
        settings["pool_reset_on_return"] = None
    connect_args = {"sqlite": _sqlite_args, "mysql": _mysql_args, "postgresql": _postgresql_args}
    arguments = connect_args[kind](options, takes_long)
    if kind == "postgresql" and reads:
        # A plan for all values serves none of them well: finds are of many matches or of few.
        arguments["options"] += " -c plan_cache_mode=force_custom_plan"
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=options.timeout,
        hide_parameters=True,  # Errors are logged; what users store is not.
        connect_args=arguments,
        **settings,
    )
    if kind == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def statement_limit(options: DatabaseOptions) -> float:
    """Returns the seconds after which MariaDB and MySQL are to end a SELECT that takes too long.

    That is before the driver gives up the connection, so that what is slow can be told from what is away.
    Only finds have this limit: the time in which the rows are taken counts too, and of a large record it
    may be long. PostgreSQL, which hands out all rows at once, has a limit for all statements.
    """
    return 2 * _whole_seconds(options) - _BEFORE_THE_DRIVER


def _whole_seconds(options: DatabaseOptions) -> int:
    return max(1, round(options.timeout))


def _sqlite_args(options: DatabaseOptions, takes_long: bool) -> dict[str, Any]:
    return {"timeout": options.timeout, "check_same_thread": False}


def _set_up_sqlite(connection: Any, record: object) -> None:
    """A commit is on disk when it returns, and readers do not wait for the writer."""
    connection.isolation_level = None  # Transactions are begun by `_begin_sqlite`, not by the driver.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Any) -> None:
    # The writer takes its lock at once: a transaction that reads first could not wait for it later.
    readonly = connection.get_execution_options().get("readonly", False)
    connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")


def _mysql_args(options: DatabaseOptions, takes_long: bool) -> dict[str, Any]:
    seconds = _whole_seconds(options)
    # Tables of old servers have defaults of zero for times, which make each change of them an error
    # where zeros are refused.
    no_zeros = "" if takes_long else "NO_ZERO_DATE,NO_ZERO_IN_DATE,"
    arguments: dict[str, Any] = {
        "charset": "utf8mb4",
        "connect_timeout": seconds,
        # An answer may come late by the wait for a lock, which ends first and is the better error.
        "read_timeout": None if takes_long else 2 * seconds,
        "write_timeout": 2 * seconds,
        # A transaction's changes go out together; rows that are found count, changed or not.
        "client_flag": _MULTI_STATEMENTS | _FOUND_ROWS,
        # Times are UTC; a value that does not fit is an error, not cut in silence.
        "init_command": (
            f"SET time_zone = '+00:00', innodb_lock_wait_timeout = {seconds}, lock_wait_timeout = {seconds}, "
            f"sql_mode = 'STRICT_ALL_TABLES,{no_zeros}ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"
            # A frozen process must not keep others from what it has locked. MySQL has no such setting.
            f" /*M! , idle_transaction_timeout = {seconds} */"
        ),
    }
    if options.ca_file or options.cert_file:
        arguments["ssl"] = _tls(options)
    return arguments


def _tls(options: DatabaseOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.ca_file or None)
        if options.cert_file:
            context.load_cert_chain(options.cert_file, options.key_file or None)
    except OSError as error:
        raise InvalidArgumentError(
            "the files of options mysql.tls.* cannot be used: "
            f"{error.strerror or 'they hold no certificate or key'}",
            reason="BAD_CONFIG",
        ) from error
    return context


def _postgresql_args(options: DatabaseOptions, takes_long: bool) -> dict[str, Any]:
    milliseconds = round(options.timeout * 1000)
    longest = 0 if takes_long else 2 * milliseconds
    return {
        "connect_timeout": max(2, round(options.timeout)),
        "application_name": "spincycle",
        "options": (
            # A commit that is answered is on disk, whatever the server's default is.
            "-c synchronous_commit=on -c timezone=UTC "
            f"-c lock_timeout={milliseconds} -c statement_timeout={longest} "
            # A frozen process must not keep others from what it has locked.
            f"-c idle_in_transaction_session_timeout={milliseconds}"
        ),
        # A server that is gone without a word is noticed.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 4 * milliseconds,
    }
