"""The database of a Request Manager, as operators' commands use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy.engine import URL, Connection

from spincycle_grpc.errors import FailedPreconditionError
from spincycle_server.database.clock import database_now
from spincycle_server.database.engine import DatabaseOptions, make_engine, parse_url
from spincycle_server.database.retrying import in_transaction
from spincycle_server.store import migrations

_Answer = TypeVar("_Answer")


class OperatorDatabase:
    """A database, over one connection. A failed transaction is tried again for `options.timeout` seconds.

    Every method may raise UnavailableError if the database cannot be used.

    Args:
        url: The database.
        options: How to connect.

    Attributes:
        engine: Makes the connection.

    Raises:
        InvalidArgumentError: The URL is invalid or names an unsupported database.
    """

    def __init__(self, url: str, options: DatabaseOptions) -> None:
        self._url = parse_url(url)
        self.engine = make_engine(self._url, options, connections=1, reads=False, takes_long=True)
        self._patience = options.timeout

    def close(self) -> None:
        """Closes the connection."""
        self.engine.dispose()

    def check(self) -> None:
        """Checks that this program knows the schema of the database.

        Raises:
            FailedPreconditionError: The schema is older or newer than this program's, or the SQLite file
                does not exist.
        """
        _check_file(self._url)
        self._read(migrations.check_schema)

    def now(self) -> int:
        """Returns the time by the database's clock, in microseconds."""
        return self._read(database_now)

    def _read(self, work: Callable[[Connection], _Answer]) -> _Answer:
        return in_transaction(self.engine, work, patience=self._patience, reads=True)

    def _write(self, work: Callable[[Connection], _Answer]) -> _Answer:
        return in_transaction(self.engine, work, patience=self._patience)


def _check_file(url: URL) -> None:
    """Refuses an SQLite file that does not exist: connecting would create it, often in the wrong directory.

    Raises:
        FailedPreconditionError: The file is missing. Reason: DATABASE_BEHIND.
    """
    file = url.database or ""
    if url.get_backend_name() != "sqlite" or url.query.get("uri") or file in ("", ":memory:"):
        return
    if not Path(file).exists():
        raise FailedPreconditionError(
            f"the database {file} does not exist: name the database with --db or a configuration file, "
            "or create it with `spincycle migrate`",
            reason="DATABASE_BEHIND",
        )
