"""What `spincycle migrate` does: brings a database up to date, says how it stands, shows the statements."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import Connection, Engine, make_url

from spincycle_server.database.engine import DatabaseOptions, make_engine, parse_url
from spincycle_server.database.retrying import in_transaction
from spincycle_server.maintenance.adoption import index_args
from spincycle_server.store import migrations
from spincycle_server.store.migrations import Revisions

_SQLITE_WAIT = 60.0
"""Seconds that a migration of an SQLite file waits for another one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Upgrade:
    """What was done to a database.

    Attributes:
        revisions: The revision that it had, and the one that it has.
        indexed: Requests of an original Spin Cycle that can be found by their args from now on.
    """

    revisions: Revisions
    indexed: int


def upgrade_database(url: str, options: DatabaseOptions) -> Upgrade:
    """Brings a database up to date. One process does it at a time, others wait for it.

    What was interrupted can be done again. No row that is there is changed.

    Raises:
        InvalidArgumentError: The URL is none that can be used.
        FailedPreconditionError: The database is from a newer version of this program.
        UnavailableError: The database cannot be used, or another process is at it for too long.
    """
    with _engine(url, options) as engine:
        revisions = in_transaction(engine, migrations.upgrade, patience=options.timeout)
        return Upgrade(revisions, index_args(engine, patience=options.timeout))


def check_database(url: str, options: DatabaseOptions) -> str:
    """Returns the revision of a database that is up to date. Changes nothing; an SQLite file is not made.

    Raises:
        InvalidArgumentError: The URL is none that can be used.
        FailedPreconditionError: The database is behind, or from a newer version of this program.
        UnavailableError: The database cannot be used.
    """
    with _engine(url, options, looks=True) as engine:
        in_transaction(engine, migrations.check_schema, patience=options.timeout)
        return in_transaction(engine, migrations.revisions, patience=options.timeout).before


def upgrade_sql(url: str, options: DatabaseOptions) -> str:
    """Returns the statements that `upgrade_database` would run to change the schema; "" if none.

    Raises:
        InvalidArgumentError: The URL is none that can be used.
        FailedPreconditionError: The database is from a newer version of this program.
        UnavailableError: The database cannot be used.
    """
    with _engine(url, options, looks=True) as engine:
        return in_transaction(engine, _sql, patience=options.timeout)


def _sql(connection: Connection) -> str:
    output = io.StringIO()
    migrations.write_sql(connection, output)
    return output.getvalue()


@contextlib.contextmanager
def _engine(url: str, options: DatabaseOptions, *, looks: bool = False) -> Iterator[Engine]:
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        options = dataclasses.replace(options, timeout=max(options.timeout, _SQLITE_WAIT))
        if looks and not Path(str(parsed.database)).exists():
            parsed = make_url("sqlite://")  # As a file that is empty, which is not made.
    engine = make_engine(parsed, options, connections=1, reads=False, takes_long=True)
    try:
        yield engine
    finally:
        engine.dispose()
