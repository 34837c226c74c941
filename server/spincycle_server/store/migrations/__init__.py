"""The history of the schema, and how to bring a database up to date."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple, TextIO

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, select, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from spincycle_grpc.errors import FailedPreconditionError, UnavailableError
from spincycle_server.store.migrations.missing import look

_HERE = Path(__file__).parent
_LOCK_NAME = "spincycle migrate"
_LOCK_NUMBER = 7_741_639_052_113
_LOCK_WAIT = 60


class SchemaState(Enum):
    """How a database's schema stands to this program's."""

    CURRENT = auto()
    BEHIND = auto()
    AHEAD = auto()


class Revisions(NamedTuple):
    """Two revisions of the schema; "" is that of a database of no revision, as an original's."""

    before: str
    after: str


def revisions(connection: Connection) -> Revisions:
    """Returns the revision that a database has, and the one that this program wants."""
    return Revisions(_present(connection), _newest())


def state_of_schema(connection: Connection) -> SchemaState:
    """Returns whether a database is up to date, behind, or from a newer version of this program."""
    script = ScriptDirectory.from_config(_config())
    revisions = {revision.revision for revision in script.walk_revisions()}
    present = set(MigrationContext.configure(connection).get_current_heads())
    if present == set(script.get_heads()):
        return SchemaState.CURRENT
    return SchemaState.BEHIND if present <= revisions else SchemaState.AHEAD


def check_schema(connection: Connection) -> None:
    """Does nothing when the database is up to date.

    Raises:
        FailedPreconditionError: It is behind, or from a newer version of this program.
    """
    state = state_of_schema(connection)
    if state is SchemaState.AHEAD:
        raise _too_new()
    if state is SchemaState.BEHIND:
        raise FailedPreconditionError(
            "the database is behind this program: run `spincycle migrate` with the same --db",
            reason="DATABASE_BEHIND",
        )


def upgrade(connection: Connection) -> Revisions:
    """Brings a database up to date. One process does it at a time; others wait for it.

    What was interrupted can be done again: what is there already is left alone.

    Returns:
        The revision that it had, and the one that it has; the same when there was nothing to do.

    Raises:
        FailedPreconditionError: The database is from a newer version of this program.
        UnavailableError: Another process is at it for too long.
    """
    with _alone(connection):
        state = state_of_schema(connection)
        if state is SchemaState.AHEAD:
            raise _too_new()
        found = revisions(connection)
        if state is SchemaState.BEHIND:
            command.upgrade(_config(connection), "head")
        return found


def write_sql(connection: Connection, output: TextIO) -> None:
    """Writes the statements that `upgrade` would run, and runs none.

    Raises:
        FailedPreconditionError: The database is from a newer version of this program.
    """
    if state_of_schema(connection) is SchemaState.AHEAD:
        raise _too_new()
    config = _config(connection)
    current = _present(connection)
    if current == _newest():
        return
    if not current and "alembic_version" in config.attributes["present"].columns:
        # Left by a migration that was interrupted; Alembic's first statement makes it.
        output.write("DROP TABLE alembic_version;\n\n")
    if connection.dialect.name == "mysql":
        # As the program's own connections: tables of old servers have defaults that some modes refuse.
        output.write("SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION';\n\n")
    config.output_buffer = output
    command.upgrade(config, f"{current or 'base'}:head", sql=True)


def _present(connection: Connection) -> str:
    return MigrationContext.configure(connection).get_current_revision() or ""


def _newest() -> str:
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    if connection is not None:
        config.attributes["connection"] = connection
        config.attributes["present"] = look(connection)
    return config


def _too_new() -> FailedPreconditionError:
    return FailedPreconditionError(
        "the database was made by a newer version of this program: use that one, or another database",
        reason="DATABASE_TOO_NEW",
    )


@contextlib.contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Holds a lock that is the whole database's. SQLite's transaction is one already."""
    if connection.dialect.name == "mysql":
        # The lock's name is the whole server's, so the database's is in it; names may have 64 characters.
        name = func.left(func.concat(_LOCK_NAME, " ", func.md5(func.database())), 64)
        if connection.scalar(select(func.get_lock(name, _LOCK_WAIT))) != 1:
            raise _busy()
        try:
            yield
        finally:
            # A connection that broke has released it.
            if not connection.invalidated:
                connection.scalar(select(func.release_lock(name)))
        return
    if connection.dialect.name == "postgresql":
        _lock_postgresql(connection)
    yield


def _lock_postgresql(connection: Connection) -> None:
    """Waits longer for the lock than statements wait for those of tables."""
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
    return UnavailableError("another process migrates the database: try again", reason="MIGRATING")
