"""Opens a database for a server, checks its schema, and warns if it is not durable."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

import structlog
from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from spincycle_server.database.engine import DatabaseOptions, make_engine, parse_url
from spincycle_server.database.file_lock import FileLock
from spincycle_server.database.troubles import translate_for_operator
from spincycle_server.store import migrations

logger = structlog.get_logger(__name__)


class OpenDatabase(NamedTuple):
    """A database that is open.

    Attributes:
        engine: The engine for writes. Each of the two writers keeps a connection. Nobody needs the third one,
            so it is not opened, but whoever did would not wait for a writer to end.
        reads: The engine for reads. It has one connection more than there are reader threads, so that a ping
            never waits for a read.
        lock: The lock on an SQLite file; None for other databases.
    """

    engine: Engine
    reads: Engine
    lock: FileLock | None


async def open_database(url: str, options: DatabaseOptions) -> OpenDatabase:
    """Opens a database. An SQLite file is created, or brought up to date.

    Raises:
        InvalidArgumentError: The URL is invalid or names an unsupported database.
        FailedPreconditionError: The schema is older or newer than this program's, or another server uses
            the SQLite file.
        UnavailableError: The database cannot be opened.
    """
    parsed = parse_url(url)
    is_file = parsed.get_backend_name() == "sqlite"
    lock = FileLock(Path(str(parsed.database))) if is_file else None
    engine = make_engine(parsed, options, connections=3, reads=False)
    try:
        await asyncio.to_thread(_prepare, engine)
    except BaseException:
        engine.dispose()
        if lock is not None:
            lock.release()
        raise
    reads = make_engine(parsed, options, connections=options.connections + 1, reads=True)
    return OpenDatabase(engine, reads, lock)


def _prepare(engine: Engine) -> None:
    """Checks the schema. Upgrades that of an SQLite file, which no other server uses."""
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                migrations.upgrade(connection)
            else:
                migrations.check_schema(connection)
                _warn_of_lossy(connection)
    except Exception as error:
        raise translate_for_operator(error, engine.url) from error


def _warn_of_lossy(connection: Connection) -> None:
    """Warns of a database that may lose committed transactions: only its operator can change that."""
    query, durable = {
        "mysql": ("SELECT @@innodb_flush_log_at_trx_commit", ("1",)),
        "postgresql": ("SHOW fsync", ("on",)),
    }[connection.dialect.name]
    setting = str(connection.scalar(text(query)))
    if setting not in durable:
        logger.warning(
            "the database is not durable: a power cut can lose requests that were accepted",
            setting=query.split()[-1].lstrip("@"),
            value=setting,
        )
