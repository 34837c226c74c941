"""Makes commits fail: before they happen, or after they happened and only the answer is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import psycopg
import pymysql
from sqlalchemy.engine import Engine

from spincycle_server.database.transaction import Transaction
from spincycle_server.store import Store
from spincycle_server.store.batches import BatchCommitter

FAULTS = ("none", "before commit", "after commit")


class CommitFaults:
    """Makes every other commit of an engine fail, as if the connection broke.

    Attributes:
        count: The number of failed commits.
    """

    def __init__(self, engine: Engine, when: str) -> None:
        self.count = 0
        self._when = when
        self._fails_next = True
        self._commit: Callable[[Any], None] = engine.dialect.do_commit
        engine.dialect.do_commit = self._do_commit  # type: ignore[method-assign, assignment]

    def _do_commit(self, connection: Any) -> None:
        fails, self._fails_next = self._fails_next, not self._fails_next
        if not fails:
            self._commit(connection)
            return
        self.count += 1
        if self._when == "after commit":
            self._commit(connection)
        _break(connection.driver_connection)


class WriteFaults:
    """Makes every other commit of a store's writers fail, as if the connection broke.

    Attributes:
        count: The number of failed commits.
    """

    def __init__(self, store: Store, when: str) -> None:
        self.count = 0
        self._when = when
        self._fails_next = True
        self._commit: Callable[[BatchCommitter, Transaction], None] = BatchCommitter.commit
        for writer in {store._writer, store._creator}:
            batches = writer.batches
            batches.commit = partial(self._fail, batches)  # type: ignore[method-assign]

    def _fail(self, batches: BatchCommitter, transaction: Transaction) -> None:
        fails, self._fails_next = self._fails_next, not self._fails_next
        if not fails:
            self._commit(batches, transaction)
            return
        self.count += 1
        driver = transaction.connection.connection.driver_connection
        if self._when == "after commit":
            self._commit(batches, transaction)
        else:
            transaction.flush()
        _break(driver)


def _break(connection: Any) -> None:
    """Breaks a connection, and raises the error of its driver."""
    if isinstance(connection, pymysql.connections.Connection):
        cast("Any", connection)._force_close()
        raise pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query")
    if isinstance(connection, psycopg.Connection):
        connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")
    raise sqlite3.OperationalError("database is locked")
