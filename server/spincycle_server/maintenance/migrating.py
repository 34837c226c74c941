"""The actions of `spincycle migrate`: upgrade a database, check its schema, and print the SQL."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import Connection, Engine, make_url

from spincycle_server.database.engine import DatabaseOptions, make_engine, parse_url
from spincycle_server.database.retrying import in_transaction
from spincycle_server.maintenance.adoption import count_left_pending, fail_left_pending, index_args
from spincycle_server.store import migrations
from spincycle_server.store.migrations import Revisions

_SQLITE_WAIT = 60.0
"""Seconds that a migration of an SQLite file waits for another migration."""


@dataclasses.dataclass(frozen=True, slots=True)
class Upgrade:
    """The result of an upgrade.

    Attributes:
        revisions: The revisions before and after.
        indexed: The number of an original's requests whose args were indexed.
        failed: The number of PENDING requests of an original that were set to FAIL.
        left_pending: The number of PENDING requests of an original that no server runs.
    """

    revisions: Revisions
    indexed: int
    failed: int
    left_pending: int


def upgrade_database(url: str, options: DatabaseOptions, *, fail_pending: bool = False) -> Upgrade:
    """Brings a database up to date. Only one process does it at a time, while others wait.

    An interrupted upgrade can be run again. Stored values are not changed, except by `fail_pending`.

    Args:
        url: The database.
        options: How to connect.
        fail_pending: Whether to set the PENDING requests that an original created to FAIL.

    Raises:
        InvalidArgumentError: The URL is invalid or names an unsupported database.
        FailedPreconditionError: The schema is newer than this program's.
        UnavailableError: The database cannot be used, or another process has been migrating for too long.
    """
    with _engine(url, options) as engine:
        revisions = in_transaction(engine, migrations.upgrade, patience=options.timeout)
        indexed = index_args(engine, patience=options.timeout)
        failed = fail_left_pending(engine, patience=options.timeout) if fail_pending else 0
        left_pending = in_transaction(engine, count_left_pending, patience=options.timeout)
        return Upgrade(revisions, indexed, failed, left_pending)


def check_database(url: str, options: DatabaseOptions) -> str:
    """Returns the revision of a database that is up to date. Changes nothing, and creates no SQLite file.

    Raises:
        InvalidArgumentError: The URL is invalid or names an unsupported database.
        FailedPreconditionError: The schema is older or newer than this program's.
        UnavailableError: The database cannot be used.
    """
    with _engine(url, options, looks=True) as engine:
        in_transaction(engine, migrations.check_schema, patience=options.timeout)
        return in_transaction(engine, migrations.revisions, patience=options.timeout).before


def upgrade_sql(url: str, options: DatabaseOptions) -> str:
    """Returns the statements with which `upgrade_database` would change the schema; "" if it is current.

    Raises:
        InvalidArgumentError: The URL is invalid or names an unsupported database.
        FailedPreconditionError: The schema is newer than this program's.
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
            parsed = make_url("sqlite://")  # Behaves like an empty file, but creates none.
    engine = make_engine(parsed, options, connections=1, reads=False, takes_long=True)
    try:
        yield engine
    finally:
        engine.dispose()
