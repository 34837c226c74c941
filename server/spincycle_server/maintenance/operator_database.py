"""The database of a Request Manager, as operators' commands use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.engine import Connection

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

    Raises:
        InvalidArgumentError: The URL is invalid or names an unsupported database.
    """

    def __init__(self, url: str, options: DatabaseOptions) -> None:
        self._engine = make_engine(parse_url(url), options, connections=1, reads=False, takes_long=True)
        self._patience = options.timeout

    def close(self) -> None:
        """Closes the connection."""
        self._engine.dispose()

    def check(self) -> None:
        """Checks that this program knows the schema of the database.

        Raises:
            FailedPreconditionError: The schema is older or newer than this program's.
        """
        self._read(migrations.check_schema)

    def now(self) -> int:
        """Returns the time by the database's clock, in microseconds."""
        return self._read(database_now)

    def _read(self, work: Callable[[Connection], _Answer]) -> _Answer:
        return in_transaction(self._engine, work, patience=self._patience, reads=True)

    def _write(self, work: Callable[[Connection], _Answer]) -> _Answer:
        return in_transaction(self._engine, work, patience=self._patience)
