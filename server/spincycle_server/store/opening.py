"""Opening a database for a server: its schema is as it must be, and what cannot be promised of it is told."""

from __future__ import annotations

import asyncio

import structlog
from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from spincycle_server.database.engine import DatabaseOptions, make_engine, parse_url
from spincycle_server.database.troubles import translate_for_operator
from spincycle_server.store import migrations

logger = structlog.get_logger(__name__)


async def open_engines(url: str, options: DatabaseOptions) -> tuple[Engine, Engine]:
    """Opens a database. An SQLite file is made, or brought up to date.

    Returns:
        The engine of what writes, with two connections, and that of what reads, with one connection
        more than threads that read: a look at the database waits for none of them.

    Raises:
        InvalidArgumentError: The URL is none that can be used.
        FailedPreconditionError: The database is behind, or from a newer version of this program.
        UnavailableError: The database cannot be opened.
    """
    parsed = parse_url(url)
    engine = make_engine(parsed, options, connections=2, reads=False)
    try:
        await asyncio.to_thread(_prepare, engine)
    except BaseException:
        engine.dispose()
        raise
    return engine, make_engine(parsed, options, connections=options.connections + 1, reads=True)


def _prepare(engine: Engine) -> None:
    """Has the schema up to date, or refuses the database. SQLite files have one user: they are upgraded."""
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
    """Tells operators of a database that may lose what it has committed; only they can change it."""
    query, durable = {
        "mysql": ("SELECT @@innodb_flush_log_at_trx_commit", ("1",)),
        "postgresql": ("SHOW fsync", ("on",)),
    }[connection.dialect.name]
    setting = str(connection.scalar(text(query)))
    if setting not in durable:
        logger.warning(
            "the database is not durable: a power cut can lose what users were told is accepted",
            setting=query.split()[-1].lstrip("@"),
            value=setting,
        )
