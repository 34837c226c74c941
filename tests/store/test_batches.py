"""Batches whose transaction fails: each change happens once, and no transaction stays open.

The tests count with rows of the table `runners`, because a change that happens twice shows in the count.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import psycopg
import pymysql
import pytest
from sqlalchemy import BigInteger, bindparam, event, insert, literal_column, select, text, update
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool
from structlog.testing import capture_logs

from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.database.troubles import Trouble, trouble_of
from spincycle_server.store import batch_retries, writer_row
from spincycle_server.store.batches import BatchCommitter
from spincycle_server.store.schema import runners
from spincycle_server.store.write import Write
from tests.databases import SERVERS, SharedServers, database_server, engine_of, migrate
from tests.limits import STEP
from tests.store.fake_time import FakeTime

CONFLICTS: dict[str, Callable[[], Exception]] = {
    "sqlite": partial(sqlite3.OperationalError, "database is locked"),
    "mysql": partial(
        pymysql.err.OperationalError, 1205, "Lock wait timeout exceeded; try restarting transaction"
    ),
    "postgresql": partial(psycopg.errors.SerializationFailure, "could not serialize access"),
}
FAULTS: dict[str, Callable[[], Exception]] = {
    "sqlite": partial(sqlite3.DatabaseError, "unknown error"),
    "mysql": partial(pymysql.err.OperationalError, 1105, "Unknown error"),
    "postgresql": partial(psycopg.errors.InternalError_, "unknown error"),
}
READ_ONLY: dict[str, Callable[[], Exception]] = {
    "mysql": partial(pymysql.err.OperationalError, 1290, "The server is running with --read-only"),
    "postgresql": partial(
        psycopg.errors.ReadOnlySqlTransaction, "cannot execute UPDATE in a read-only transaction"
    ),
}
"""Errors of a server that became a replica: it is away, but the connection lives."""
LOST: dict[str, Callable[[], Exception]] = {
    "mysql": partial(pymysql.err.OperationalError, 2013, "Lost connection to MySQL server during query"),
    "postgresql": partial(psycopg.OperationalError, "server closed the connection unexpectedly"),
}

KILL = {"mysql": "KILL CONNECTION {}", "postgresql": "SELECT pg_terminate_backend({})"}
IDLE_LIMIT = {"mysql": "SET wait_timeout = 1", "postgresql": "SET idle_session_timeout = '1s'"}
SESSIONS = {
    "mysql": "SELECT COUNT(*) FROM information_schema.processlist WHERE id = {}",
    "postgresql": "SELECT COUNT(*) FROM pg_stat_activity WHERE pid = {}",
}

COUNT = RowStatement(
    lambda _: (
        update(runners)
        .where(runners.c.runner_id == bindparam("key"))
        .values(lease_expires_at=runners.c.lease_expires_at + literal_column("1", BigInteger))
    )
)


@dataclass(slots=True)
class Count(Write):
    """Adds one to the count of a row. Result: the name of the row."""

    name: str

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[Count]) -> Sequence[str]:
        transaction.change(COUNT, [{"key": write.name} for write in writes])
        return [write.name for write in writes]


class Committer(BatchCommitter):
    """A committer whose commits fail on demand.

    Attributes:
        failures: What the next commits do instead of committing, when the changes are already sent.
        connections: The driver's connection of each commit.
    """

    def __init__(self, engine: Engine, *, patience: float = STEP) -> None:
        super().__init__(engine, patience=patience, name="changes")
        self.failures: list[Callable[[Any], None]] = []
        self.connections: list[Any] = []
        self._dialect: Any = engine.dialect

    def commit(self, transaction: Transaction) -> None:
        self.connections.append(transaction.connection.connection.driver_connection)
        if not self.failures:
            super().commit(transaction)
            return
        transaction.flush()
        self._dialect.do_commit = self.failures.pop(0)
        try:
            transaction.connection.commit()
        finally:
            del self._dialect.do_commit  # The method of the class is back.


class Database:
    """A database with the counts a and b, and a committer on it."""

    def __init__(self, url: str) -> None:
        self.engine = engine_of(url)
        self.kind = self.engine.dialect.name
        self.committer = Committer(self.engine)
        self.observed = engine_of(url)
        with self.observed.begin() as connection:
            row = {"url": "", "grpc_address": "", "draining": False, "lease_expires_at": 0}
            connection.execute(insert(runners), [row | {"runner_id": name} for name in ("a", "b")])

    def counts(self) -> dict[str, int]:
        """Returns the committed counts, as another connection sees them."""
        with self.observed.connect() as connection:
            rows = connection.execute(select(runners.c.runner_id, runners.c.lease_expires_at))
            return {row.runner_id: row.lease_expires_at for row in rows}

    def run(self, *names: str) -> list[str]:
        """Counts in one batch, and returns the troubles after which it was retried."""
        with capture_logs() as logs:
            assert self.committer.run([Count(name) for name in names]) == list(names)
        assert all(log["writes"] == len(names) for log in logs)
        return [log.get("trouble", log["event"]) for log in logs]

    def hold(self, name: str) -> Connection:
        """Locks the row of a count until the returned connection is closed."""
        connection = self.observed.connect()
        connection.execute(select(runners).where(runners.c.runner_id == name).with_for_update())
        return connection

    def ask(self, statement: str) -> Any:
        """Returns the first value of a query about the session of the last commit."""
        driver = self.committer.connections[-1]
        session = driver.info.backend_pid if self.kind == "postgresql" else driver.thread_id()
        with self.observed.connect() as connection:
            found = connection.execute(text(statement.format(session)))
            return found.scalar() if found.returns_rows else None

    def wait_until_closed(self) -> None:
        """Waits until the server has closed the connection that the committer has used."""
        deadline = time.monotonic() + STEP
        while self.ask(SESSIONS[self.kind]):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def close(self) -> None:
        self.committer.close()
        self.engine.dispose()
        self.observed.dispose()


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """A database of each kind."""
    database = Database(migrated_url)
    yield database
    database.close()


@pytest.fixture(params=SERVERS)
def server(
    request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path
) -> Iterator[Database]:
    """A database of each kind that runs in a server."""
    with database_servers.migrated(request.param, tmp_path) as url:
        database = Database(url)
        yield database
        database.close()


def raises(error: Callable[[], Exception]) -> Callable[[Any], None]:
    """A commit that fails while the connection lives."""

    def fail(connection: Any) -> None:
        raise error()

    return fail


def breaks(error: Callable[[], Exception], *, commits: bool = False) -> Callable[[Any], None]:
    """A commit that fails because the connection broke, perhaps after the commit happened."""

    def fail(connection: Any) -> None:
        driver = connection.driver_connection
        if commits:
            driver.commit()
        if isinstance(driver, pymysql.connections.Connection):
            cast("Any", driver)._force_close()
        else:
            driver.close()
        raise error()

    return fail


def is_closed(connection: Any) -> bool:
    """Whether a driver's connection to a server is closed."""
    return bool(connection.closed) if isinstance(connection, psycopg.Connection) else not connection.open


def test_the_next_batch_does_not_commit_the_changes_of_a_failed_one(database: Database) -> None:
    database.run("a")
    database.committer.failures = [raises(FAULTS[database.kind])]
    with pytest.raises(DBAPIError) as raised:
        database.run("a", "b")
    assert trouble_of(raised.value) is Trouble.FAULT
    assert database.counts() == {"a": 1, "b": 0}
    assert database.run("b") == []
    assert database.counts() == {"a": 1, "b": 1}


def test_a_retry_after_a_failed_commit_does_not_repeat_changes(database: Database) -> None:
    database.run("a")
    database.committer.failures = [raises(CONFLICTS[database.kind])] * 3
    assert database.run("a", "b") == ["CONFLICT"] * 3
    assert database.counts() == {"a": 2, "b": 1}
    # A live connection is used again.
    assert len(set(map(id, database.committer.connections))) == 1


def test_a_batch_that_waits_too_long_for_a_lock_is_retried_whole(
    server: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB rolls back only the statement that waited: the others of the packet stay pending."""
    lock_timeouts = {"mysql": "SET innodb_lock_wait_timeout = 1", "postgresql": "SET lock_timeout = '1s'"}
    event.listen(
        server.engine,
        "begin",
        lambda connection: connection.exec_driver_sql(lock_timeouts[server.kind]),
    )
    server.run("a")
    holder = server.hold("b")
    attempts = []

    def apply(transaction: Transaction, writes: Sequence[Write]) -> list[Any]:
        attempts.append(1)
        if len(attempts) == 2:
            holder.close()
        return Committer.apply(server.committer, transaction, writes)

    monkeypatch.setattr(server.committer, "apply", apply)
    with holder:
        assert server.run("a", "b") == ["CONFLICT"]
    assert server.run("a") == []
    assert server.counts() == {"a": 3, "b": 1}


def test_a_live_connection_to_a_server_that_is_away_is_closed(server: Database) -> None:
    """The next connection may lead to another server, and the old one must not keep its transaction."""
    server.run("a")
    server.committer.failures = [raises(READ_ONLY[server.kind])]
    assert server.run("a", "b") == ["AWAY"]
    assert server.counts() == {"a": 2, "b": 1}
    first, failed, retried = server.committer.connections
    assert failed is first
    assert retried is not failed
    assert is_closed(failed)


def test_a_connection_whose_rollback_fails_is_not_used_again(database: Database) -> None:
    database.run("a")
    # The connection breaks, but the error does not say so. SQLAlchemy asks psycopg itself.
    database.committer.failures = [breaks(CONFLICTS[database.kind])]
    assert database.run("a", "b") == ["AWAY" if database.kind == "postgresql" else "CONFLICT"]
    assert database.counts() == {"a": 2, "b": 1}
    _, failed, retried = database.committer.connections
    assert retried is not failed


def test_a_batch_is_repeated_if_the_connection_broke_before_its_commit(server: Database) -> None:
    server.run("a")
    server.committer.failures = [breaks(LOST[server.kind])] * 2
    assert server.run("a", "b") == ["AWAY"] * 2
    assert server.counts() == {"a": 2, "b": 1}
    assert server.committer.commits == 2


def test_a_batch_is_not_repeated_if_the_connection_broke_after_its_commit(server: Database) -> None:
    server.run("a")
    server.committer.failures = [breaks(LOST[server.kind], commits=True)]
    assert server.run("a", "b") == ["AWAY", "a commit without an answer was successful"]
    assert server.counts() == {"a": 2, "b": 1}
    assert server.committer.commits == 2


def test_batches_use_the_same_connection(database: Database) -> None:
    for _ in range(3):
        assert database.run("a") == []
        assert database.committer.has_idle_connection
    assert len(set(map(id, database.committer.connections))) == 1
    database.committer.close()
    assert not database.committer.has_idle_connection
    assert database.run("a") == []
    assert database.counts() == {"a": 4, "b": 0}


def test_a_kept_connection_locks_nothing_between_batches(database: Database) -> None:
    database.run("a")
    with database.observed.begin() as connection:
        connection.execute(update(runners).values(lease_expires_at=10))
    database.run("a")
    assert database.counts() == {"a": 11, "b": 10}


def test_a_connection_is_given_back_after_an_error(database: Database) -> None:
    database.run("a")
    database.committer.failures = [raises(FAULTS[database.kind])]
    with pytest.raises(DBAPIError):
        database.run("a")
    assert not database.committer.has_idle_connection
    pool = cast("QueuePool", database.engine.pool)
    assert pool.checkedout() == 0
    database.committer.close()  # Twice does no harm.


def test_the_row_of_the_writer_is_refreshed_when_each_writer_has_a_connection(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime()
    monkeypatch.setattr(writer_row, "time", clock)
    database.run("a")
    with database.engine.connect():  # that of the other writer
        clock.now += 13 * 3600
        assert database.run("a") == []
    assert database.counts() == {"a": 2, "b": 0}


@pytest.mark.parametrize("way", ["killed", "idle too long"])
def test_a_kept_connection_that_the_server_has_closed_costs_one_retry(server: Database, way: str) -> None:
    server.run("a")
    if way == "killed":
        server.ask(KILL[server.kind])
    else:
        driver = server.committer.connections[-1]
        with driver.cursor() as cursor:
            cursor.execute(IDLE_LIMIT[server.kind])
        driver.commit()
    server.wait_until_closed()
    assert server.run("a", "b") == ["AWAY"]
    assert server.run("b") == []
    assert server.counts() == {"a": 2, "b": 2}
    first, failed, *retried = server.committer.connections
    assert failed is first
    assert failed not in retried
    assert is_closed(failed)


@pytest.mark.parametrize("kind", SERVERS)
def test_a_kept_connection_does_not_outlast_its_server(kind: str) -> None:
    with database_server(kind) as process:
        url = process.fresh_database()
        migrate(url)
        server = Database(url)
        server.run("a")
        server.run("b")
        process.kill()
        process.start()
        assert set(server.run("a", "b")) == {"AWAY"}
        server.observed.dispose()  # Its connection is closed too.
        assert server.counts() == {"a": 2, "b": 2}
        server.close()


def test_only_the_first_batch_waits_while_the_database_is_away(
    server: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.committer = Committer(server.engine, patience=5.0)
    clock = FakeTime()
    monkeypatch.setattr(batch_retries, "time", clock)

    def fails() -> int:
        """Runs a batch while the database is away, and returns how often it was retried."""
        clock.pauses.clear()
        lost = LOST[server.kind]
        with monkeypatch.context() as patch:
            patch.setattr(server.committer, "apply", lambda *_: raises(lost)(None))
            with pytest.raises(type(lost())):
                server.run("a")
        return len(clock.pauses)

    assert fails() >= 10
    assert sum(clock.pauses) > 5
    assert [fails(), fails()] == [0, 0]
    assert server.run("a") == []
    assert fails() >= 10  # The database was back meanwhile.
    assert server.counts() == {"a": 1, "b": 0}
