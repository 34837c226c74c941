"""The history of the schema, and how to bring a database up to date."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path
from typing import TextIO

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from server.store.migrations.missing import look
from spincycle_grpc.errors import FailedPreconditionError, UnavailableError

_HERE = Path(__file__).parent
_LOCK_NAME = "spincycle migrate"
_LOCK_NUMBER = 7_741_639_052_113
_LOCK_WAIT = 60


class SchemaState(Enum):
    """How a database's schema stands to this program's."""

    CURRENT = auto()
    BEHIND = auto()
    AHEAD = auto()


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


def upgrade(connection: Connection) -> bool:
    """Brings a database up to date. One process does it at a time; others wait for it.

    Returns:
        Whether there was anything to do.

    Raises:
        FailedPreconditionError: The database is from a newer version of this program.
        UnavailableError: Another process is at it for too long.
    """
    with _alone(connection):
        state = state_of_schema(connection)
        if state is SchemaState.AHEAD:
            raise _too_new()
        if state is SchemaState.CURRENT:
            return False
        config = _config(connection)
        command.upgrade(config, "head")
        return True


def write_sql(connection: Connection, output: TextIO) -> None:
    """Writes the statements that `upgrade` would run, and runs none.

    Raises:
        FailedPreconditionError: The database is from a newer version of this program.
    """
    if state_of_schema(connection) is SchemaState.AHEAD:
        raise _too_new()
    config = _config(connection)
    config.output_buffer = output
    current = MigrationContext.configure(connection).get_current_revision() or "base"
    command.upgrade(config, f"{current}:head", sql=True)


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
        if connection.scalar(select(func.get_lock(_LOCK_NAME, _LOCK_WAIT))) != 1:
            raise UnavailableError("another process migrates the database: try again", reason="MIGRATING")
        try:
            yield
        finally:
            connection.scalar(select(func.release_lock(_LOCK_NAME)))
        return
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK_NUMBER)))
    yield
