"""Connecting to the database, and its errors in the project's words."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from spincycle_grpc.errors import InternalError, InvalidArgumentError, SpinCycleError, UnavailableError

READ_CONNECTIONS = 4
"""Connections for reading, and threads that use them."""


def parse_url(text: str) -> URL:
    """Returns the URL of a database.

    Raises:
        InvalidArgumentError: It is none, or of a database that is not supported. The message does not
            show it, since it may hold a password.
    """
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise InvalidArgumentError(
            "the database must be given as sqlite:///PATH", reason="BAD_DATABASE_URL"
        ) from error
    if url.get_backend_name() != "sqlite":
        raise InvalidArgumentError(
            f"databases of kind {url.get_backend_name()!r} are not supported: use sqlite:///PATH",
            reason="BAD_DATABASE_URL",
        )
    if not url.database or url.database == ":memory:":
        raise InvalidArgumentError(
            "an SQLite database must be a file: use sqlite:///PATH", reason="BAD_DATABASE_URL"
        )
    return url


def make_engine(url: URL, timeout: float, *, connections: int) -> Engine:
    """Returns an engine with a fixed number of connections.

    Args:
        url: The database.
        timeout: Seconds that a statement waits for another's lock, or for a connection.
        connections: As many are open at most.
    """
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout,
        connect_args={"timeout": timeout, "check_same_thread": False},
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


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


def translate(error: Exception) -> SpinCycleError:
    """Returns what an error of the database is for users. Statements and values stay out of it."""
    if isinstance(error, SpinCycleError):
        return error
    if isinstance(error, OperationalError | PoolTimeoutError):
        detail = _first_line(error)
        return UnavailableError(f"the database cannot be used now: {detail}", reason="DATABASE_UNAVAILABLE")
    if isinstance(error, SQLAlchemyError):
        return InternalError(
            "the database refused a change: the server's log says more", reason="DATABASE_ERROR"
        )
    return InternalError("internal error: the server's log says more")


def _first_line(error: SQLAlchemyError) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else None
    text = str(cause) if cause is not None else "no connection is free"
    return text.splitlines()[0] if text else type(error).__name__
