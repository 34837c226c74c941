"""Connects to the database: SQLite, MySQL, MariaDB or PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.dialects import registry
from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import QueuePool

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server import forked_children
from spincycle_server.database.sessions import (
    MYSQL_SETTINGS,
    POSTGRESQL_SETTINGS,
    mysql_assignments,
    postgresql_options,
)
from spincycle_server.database.transaction import MAX_PACKET_KEY
from spincycle_server.database.urls import parse_url

__all__ = ["DatabaseOptions", "make_engine", "parse_url", "statement_limit"]

# Flags of the protocol, defined here so that the driver is loaded only if it is used.
_FOUND_ROWS = 1 << 1
_MULTI_STATEMENTS = 1 << 16
_BEFORE_THE_DRIVER = 0.5
"""Seconds by which the server ends a statement before the driver gives up the connection."""


registry.register("mysql.spincycle", "spincycle_server.database.mysql_dialect", "MySqlDialect")


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """How to connect to a database.

    Attributes:
        timeout: Seconds to wait for a lock, an answer or a connection, and for the database to come back.
        connections: The number of connections for reads and of threads that use them. There are up to three
            more connections, for writes and pings.
        cert_file: The client's certificate for MySQL; "" for none.
        key_file: The key of that certificate.
        ca_file: The CA that must have signed the server's certificate; "" to use TLS only if the URL says so.
        schema: The PostgreSQL schema with the tables; "" for the first of the session's search path.
    """

    timeout: float = 5.0
    connections: int = 4
    cert_file: str = ""
    key_file: str = ""
    ca_file: str = ""
    schema: str = ""


def make_engine(
    url: URL, options: DatabaseOptions, *, connections: int, reads: bool, takes_long: bool = False
) -> Engine:
    """Returns an engine with a pool of connections, which are opened when they are needed.

    Args:
        url: The database, from `parse_url`.
        options: How to connect.
        connections: The maximum number of open connections.
        reads: Whether the engine is for single statements that read. Otherwise it is for transactions.
        takes_long: Whether the engine is for operators' commands, such as migrations. Their statements have
            no time limit. They keep the lock timeout, because other statements queue behind one that waits
            for a lock.
    """
    kind = url.get_backend_name()
    if options.schema and kind != "postgresql":
        raise InvalidArgumentError(
            "option database.schema: only PostgreSQL has schemas within a database", reason="BAD_CONFIG"
        )
    settings: dict[str, Any] = {}
    if kind != "sqlite":
        settings["isolation_level"] = "AUTOCOMMIT" if reads else "READ COMMITTED"
        settings["skip_autocommit_rollback"] = reads
    if kind == "mysql" and not reads:
        # The code that leaves a transaction open rolls it back. Another ROLLBACK would cost a round trip.
        settings["pool_reset_on_return"] = None
    connect_args = {"sqlite": _sqlite_args, "mysql": _mysql_args, "postgresql": _postgresql_args}
    arguments = connect_args[kind](options, takes_long)
    if kind == "postgresql":
        if reads:
            # Plan each find for its own values. Some finds match many rows and others few, so no generic plan
            # suits all.
            arguments["options"] += " -c plan_cache_mode=force_custom_plan"
        if "options" in url.query:  # The URL's own options come first, because the last of two counts.
            arguments["options"] = f"{url.query['options']} {arguments['options']}"
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=options.timeout,
        hide_parameters=True,  # Errors are logged; users' values must not be.
        connect_args=arguments,
        **settings,
    )
    if kind == "sqlite":
        event.listen(engine, "do_connect", _create_private_file)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        if url.database:
            forked_children.add_sqlite_file(url.database)
    else:
        event.listen(engine, "connect", _keep_from_children)
    if kind == "postgresql":
        # Not before it is needed: the driver takes long to load, and most servers use another database.
        from spincycle_server.database.postgresql_connection import connector

        event.listen(engine, "do_connect", connector(None if takes_long else 2 * options.timeout))
    if kind == "mysql":
        event.listen(engine, "connect", _look_up_max_packet)
    return engine


def statement_limit(options: DatabaseOptions) -> float:
    """Returns the seconds after which MariaDB and MySQL end a SELECT.

    The limit is shorter than the driver's read timeout, which closes the connection. So the error shows
    whether a statement was slow or the database does not answer. Only finds have this limit, because it
    includes the time to fetch the rows, which is long for a large record. PostgreSQL sends all rows at once,
    so there every statement has a limit.
    """
    return 2 * _whole_seconds(options) - _BEFORE_THE_DRIVER


def _whole_seconds(options: DatabaseOptions) -> int:
    return max(1, round(options.timeout))


def _sqlite_args(options: DatabaseOptions, takes_long: bool) -> dict[str, Any]:
    return {"timeout": options.timeout, "check_same_thread": False}


def _create_private_file(
    dialect: object, record: object, arguments: list[Any], named: Mapping[str, Any]
) -> None:
    """Creates a missing file for this user alone: it has args, output and hashes of tokens.

    SQLite gives the same mode to the files beside it. It creates a file for everybody to read.
    """
    if not named.get("uri") and arguments[0] != ":memory:":
        with contextlib.suppress(OSError):  # It exists, or SQLite says what is wrong.
            os.close(os.open(arguments[0], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _set_up_sqlite(connection: Any, record: object) -> None:
    """Makes commits durable when they return, and lets readers work beside the writer."""
    connection.isolation_level = None  # The driver begins no transactions: `_begin_sqlite` does.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Any) -> None:
    # Take the write lock at once: SQLite does not let a transaction that has read wait for it.
    readonly = connection.get_execution_options().get("readonly", False)
    connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")


def _keep_from_children(connection: Any, record: object) -> None:
    """Notes the socket of a connection, so that processes that jobs fork do not keep it open."""
    forked_children.add_descriptor(getattr(connection, "_sock", connection).fileno())


def _look_up_max_packet(connection: Any, record: Any) -> None:
    """Notes the packet limit of the server. A longer packet would make it close the connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@max_allowed_packet")
        record.info[MAX_PACKET_KEY] = int(cursor.fetchone()[0])


def _mysql_args(options: DatabaseOptions, takes_long: bool) -> dict[str, Any]:
    seconds = _whole_seconds(options)
    # Tables of old servers may have zero dates as defaults. A mode that refuses zero dates makes every ALTER
    # of such a table fail.
    no_zeros = "" if takes_long else "NO_ZERO_DATE,NO_ZERO_IN_DATE,"
    arguments: dict[str, Any] = {
        "charset": "utf8mb4",
        "connect_timeout": seconds,
        # Longer than the lock timeout, which gives the better error.
        "read_timeout": None if takes_long else 2 * seconds,
        "write_timeout": 2 * seconds,
        # Several statements per packet; row counts include matched rows that did not change.
        "client_flag": _MULTI_STATEMENTS | _FOUND_ROWS,
        # A value that does not fit is an error instead of being truncated.
        "init_command": (
            f"SET {mysql_assignments(MYSQL_SETTINGS)}, "
            f"innodb_lock_wait_timeout = {seconds}, lock_wait_timeout = {seconds}, "
            f"sql_mode = 'STRICT_ALL_TABLES,{no_zeros}ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"
            # A frozen process must not keep its locks. MySQL has no such setting.
            f" /*M! , idle_transaction_timeout = {seconds}, max_statement_time = 0 */"
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
            f"{error.strerror or 'they contain no certificate or key'}",
            reason="BAD_CONFIG",
        ) from error
    return context


def _postgresql_args(options: DatabaseOptions, takes_long: bool) -> dict[str, Any]:
    milliseconds = round(options.timeout * 1000)
    settings = POSTGRESQL_SETTINGS | {
        "lock_timeout": str(milliseconds),
        "statement_timeout": str(0 if takes_long else 2 * milliseconds),
        # A frozen process must not keep its locks.
        "idle_in_transaction_session_timeout": str(milliseconds),
    }
    if options.schema:
        settings["search_path"] = '"' + options.schema.replace('"', '""') + '"'
    return {
        "connect_timeout": max(2, round(options.timeout)),
        "application_name": "spincycle",
        "client_encoding": "UTF8",
        "options": postgresql_options(settings),
        # Notices a server that disappears without closing the connection.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 4 * milliseconds,
    }
