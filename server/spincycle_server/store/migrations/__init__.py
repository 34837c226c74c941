"""The history of the schema, and how to bring a database up to date.

Alembic runs the migrations. Only they load it, because most processes find a current schema.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from sqlalchemy import func, inspect, select, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from spincycle_grpc.errors import FailedPreconditionError, UnavailableError

if TYPE_CHECKING:
    from alembic.config import Config

_HERE = Path(__file__).parent
_LOCK_NAME = "spincycle migrate"
_LOCK_NUMBER = 7_741_639_052_113
_LOCK_WAIT = 60


class SchemaState(Enum):
    """How a database's schema compares with this program's."""

    CURRENT = auto()
    BEHIND = auto()
    AHEAD = auto()


class Revisions(NamedTuple):
    """Two revisions of the schema; "" for a database without a revision, such as an original's."""

    before: str
    after: str


def revisions(connection: Connection) -> Revisions:
    """Returns the revision of a database, and the newest revision that this program knows."""
    return Revisions(_present(connection), _newest())


def state_of_schema(connection: Connection) -> SchemaState:
    """Returns whether a database's schema is current, older, or newer than this program's."""
    known = known_revisions()
    present = _present(connection)
    if present == known[-1]:
        return SchemaState.CURRENT
    return SchemaState.BEHIND if present in ("", *known) else SchemaState.AHEAD


def known_revisions() -> list[str]:
    """Returns the revisions of the schema that this program knows, the oldest first.

    The names of the files in `versions` begin with them.
    """
    return sorted(path.name.partition("_")[0] for path in (_HERE / "versions").glob("[0-9]*_*.py"))


def check_schema(connection: Connection) -> None:
    """Raises unless the schema of a database is current.

    Raises:
        FailedPreconditionError: The schema is older (reason DATABASE_BEHIND) or newer (reason
            DATABASE_TOO_NEW) than this program's.
    """
    state = state_of_schema(connection)
    if state is SchemaState.AHEAD:
        raise _too_new()
    if state is SchemaState.BEHIND:
        raise FailedPreconditionError(
            "the database is older than this program: run `spincycle migrate` with the same --db",
            reason="DATABASE_BEHIND",
        )


def check_encoding(connection: Connection) -> None:
    """Checks that a PostgreSQL database can hold all text, and that the schema for the tables exists.

    On other databases, tables and columns have the encoding that they need, whatever the database's is.

    Raises:
        FailedPreconditionError: It cannot (reason BAD_ENCODING), or there is no schema (NO_SCHEMA).
    """
    if connection.dialect.name != "postgresql":
        return
    encoding = connection.scalar(text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise FailedPreconditionError(
            f"the database has the encoding {encoding}, which cannot hold all text: "
            "create it with ENCODING 'UTF8' TEMPLATE template0",
            reason="BAD_ENCODING",
        )
    if connection.scalar(text("SELECT current_schema()")) is None:
        raise FailedPreconditionError(
            "the database has no schema for the tables: create the schema that database.schema or the "
            "search path of the user names",
            reason="NO_SCHEMA",
        )


def upgrade(connection: Connection) -> Revisions:
    """Brings a database up to date. Only one process does it at a time, while others wait.

    An interrupted upgrade can be run again: it adds only what is missing.

    Returns:
        The revisions before and after, which are equal if there was nothing to do.

    Raises:
        FailedPreconditionError: The schema is newer than this program's, or see `check_encoding`.
        UnavailableError: Another process has been migrating for too long. Reason: MIGRATING.
    """
    with _alone(connection):
        check_encoding(connection)
        state = state_of_schema(connection)
        if state is SchemaState.AHEAD:
            raise _too_new()
        found = revisions(connection)
        if state is SchemaState.BEHIND:
            from alembic import command

            command.upgrade(_config(connection), "head")
        return found


def write_sql(connection: Connection, output: TextIO) -> None:
    """Writes the statements that `upgrade` would run, without running them.

    Raises:
        FailedPreconditionError: The schema is newer than this program's.
    """
    from alembic import command

    check_encoding(connection)
    if state_of_schema(connection) is SchemaState.AHEAD:
        raise _too_new()
    config = _config(connection)
    current = _present(connection)
    if current == _newest():
        return
    if not current and "alembic_version" in config.attributes["present"].columns:
        # An interrupted migration left the table, and Alembic's first statement creates it.
        output.write("DROP TABLE alembic_version;\n\n")
    if connection.dialect.name == "mysql":
        # A mode that allows the zero dates that tables of old servers have as defaults.
        output.write("SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION';\n\n")
    config.output_buffer = output
    command.upgrade(config, f"{current or 'base'}:head", sql=True)


def _present(connection: Connection) -> str:
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.scalar(text("SELECT MAX(version_num) FROM alembic_version")) or ""


def _newest() -> str:
    return known_revisions()[-1]


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    from spincycle_server.store.migrations.missing import look

    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["present"] = look(connection)
    return config


def _too_new() -> FailedPreconditionError:
    return FailedPreconditionError(
        "the database belongs to a newer version of this program: use that version, or another database",
        reason="DATABASE_TOO_NEW",
    )


@contextlib.contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Holds a lock on the whole database. For SQLite, the transaction itself is that lock."""
    if connection.dialect.name == "mysql":
        # Lock names are server-wide, so the name includes the database. It may have at most 64 characters.
        name = func.left(func.concat(_LOCK_NAME, " ", func.md5(func.database())), 64)
        if connection.scalar(select(func.get_lock(name, _LOCK_WAIT))) != 1:
            raise _busy()
        try:
            yield
            # MySQL has committed the changes of the schema, but not yet the newest revision. The next process
            # must see it.
            connection.exec_driver_sql("COMMIT")
        finally:
            # A broken connection has released the lock.
            if not connection.invalidated:
                connection.scalar(select(func.release_lock(name)))
        return
    if connection.dialect.name == "postgresql":
        _lock_postgresql(connection)
    yield


def _lock_postgresql(connection: Connection) -> None:
    """Takes the lock. Waits longer for it than statements wait for locks on tables."""
    before = connection.scalar(text("SHOW lock_timeout"))
    connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}s'"))
    try:
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK_NUMBER)))
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", "") == "55P03":
            raise _busy() from error
        raise
    connection.execute(select(func.set_config("lock_timeout", before, True)))


def _busy() -> UnavailableError:
    return UnavailableError("another process is migrating the database: try again later", reason="MIGRATING")
