"""The history of the schema, and how to bring a database up to date."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import FailedPreconditionError

_HERE = Path(__file__).parent


def upgrade(connection: Connection) -> None:
    """Brings the database up to date, in the connection's transaction.

    Raises:
        FailedPreconditionError: The database is from a newer version of this program.
    """
    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise FailedPreconditionError(
            "the database was made by a newer version of this program: use that one, or another database",
            reason="DATABASE_TOO_NEW",
        ) from error


def is_current(connection: Connection) -> bool:
    """Whether the database is up to date."""
    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    heads = set(ScriptDirectory.from_config(config).get_heads())
    return set(MigrationContext.configure(connection).get_current_heads()) == heads
