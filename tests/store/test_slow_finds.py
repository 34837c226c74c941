"""Finds that take too long: the database ends them, and the error says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Text, cast, event, func
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import DeadlineExceededError, UnavailableError
from spincycle_grpc.v1.audit_pb2 import AuditFilter
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_server.database.engine import _mysql_args, statement_limit
from spincycle_server.database.mysql_dialect import bounded
from spincycle_server.store import DatabaseOptions, Store, audit_listing, finding
from spincycle_server.store.scan import Scan
from tests.databases import DATABASES, SharedServers, migrate
from tests.limits import STEP
from tests.store.samples import create
from tests.store.test_audit import an_event

HASTY = DatabaseOptions(timeout=2.0)
SLEEP = 60
"""Seconds that a row takes where finds are made slow."""


@pytest.fixture(params=["mariadb", "postgresql"])
async def hasty(
    request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path
) -> AsyncIterator[Store]:
    """A store with a request, whose statements may not take long."""
    url = database_servers.url(request.param, tmp_path)
    migrate(url)
    store = await Store.open(url, HASTY)
    await create(store)
    yield store
    await store.close()


def make_slow(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the database take its time over each row that a find looks at."""
    is_mysql = store._engine.dialect.name == "mysql"
    conditions = finding.Finding.conditions

    def slow(self: finding.Finding, index: str = "") -> list[ColumnElement[bool]]:
        sleep = func.sleep(SLEEP) == 0 if is_mysql else cast(func.pg_sleep(SLEEP), Text) == ""
        return [*conditions(self, index), sleep]

    monkeypatch.setattr(finding.Finding, "conditions", slow)


def statements_of_reads(store: Store) -> list[str]:
    """Returns a list that gets the statements that are read with."""
    statements: list[str] = []
    event.listen(
        store._reader._engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_: statements.append(statement),
    )
    return statements


async def test_a_find_that_takes_too_long_fails_with_find_too_slow(
    hasty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty._statement_limit = 1.0  # On a busy machine too it is over long before the driver gives up.
    with monkeypatch.context() as slowed:
        make_slow(hasty, slowed)
        statements = statements_of_reads(hasty)
        with pytest.raises(DeadlineExceededError) as caught:
            await hasty.find_requests(RequestFilter())
    assert caught.value.reason == "FIND_TOO_SLOW"
    assert "narrow the filter" in caught.value.message
    assert len(statements) == 1  # It was not tried again,
    assert not hasty._reader._is_away  # the database not taken for away,
    await hasty.ping()
    assert len(await hasty.find_requests(RequestFilter())) == 1  # and the connection is still of use.


async def test_a_statement_ended_by_an_operator_does_not_count_as_database_away(
    hasty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_slow(hasty, monkeypatch)
    sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    is_mysql = hasty._engine.dialect.name == "mysql"

    def tell(connection: Connection, *_: Any) -> None:
        driver: Any = connection.connection.driver_connection
        number = driver.thread_id() if is_mysql else driver.info.backend_pid
        sent.get_loop().call_soon_threadsafe(sent.set_result, number)

    event.listen(hasty._reader._engine, "before_cursor_execute", tell, once=True)
    find = asyncio.create_task(hasty.find_requests(RequestFilter()))
    number = await sent
    end = f"KILL QUERY {number}" if is_mysql else f"SELECT pg_cancel_backend({number})"
    while not find.done():  # The statement may not have reached the database yet.
        with hasty._engine.connect() as connection:
            connection.exec_driver_sql(end)
        await asyncio.wait([find], timeout=0.05)
    with pytest.raises(DeadlineExceededError):
        find.result()


async def test_other_reads_that_take_too_long_count_as_database_away(hasty: Store) -> None:
    """Those are by a key: what is slow then is the database, and callers should try again."""

    def slow(connection: Connection) -> None:
        sleep = "SELECT SLEEP(60)" if connection.dialect.name == "mysql" else "SELECT pg_sleep(60)"
        connection.exec_driver_sql(sleep)

    with pytest.raises(UnavailableError):
        await hasty._reader.read(slow)


@pytest.fixture(params=DATABASES)
async def filled(
    request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path
) -> AsyncIterator[Store]:
    """A store with some requests."""
    url = database_servers.url(request.param, tmp_path)
    migrate(url)
    store = await Store.open(url)
    for _ in range(6):
        await create(store)
    yield store
    await store.close()


@pytest.mark.parametrize(
    "wanted", [RequestFilter(), RequestFilter(limit=1, offset=5)], ids=["all", "large offset"]
)
async def test_a_cancelled_find_ends_before_its_next_block(
    filled: Store, monkeypatch: pytest.MonkeyPatch, wanted: RequestFilter
) -> None:
    monkeypatch.setattr(finding, "BLOCK", 1)
    reads = 0
    reached, let = threading.Event(), threading.Event()
    read = Scan.read

    def held(self: Scan, *arguments: Any, **named: Any) -> Any:
        nonlocal reads
        reads += 1
        reached.set()
        assert let.wait(STEP)
        return read(self, *arguments, **named)

    monkeypatch.setattr(Scan, "read", held)
    find = asyncio.create_task(filled.find_requests(wanted))
    assert await asyncio.to_thread(reached.wait, STEP)
    find.cancel()
    with pytest.raises(asyncio.CancelledError):
        await find
    let.set()
    await asyncio.to_thread(filled._reader._readers.shutdown)  # Returns when the threads have ended.
    assert reads == 1


def test_mariadb_and_mysql_get_a_time_limit_in_their_own_syntax() -> None:
    """By the manuals of both; the tests have no MySQL."""
    select = "SELECT a FROM (SELECT b FROM c) AS d"
    assert bounded(select, 9.5, is_mariadb=True) == f"SET STATEMENT max_statement_time = 9.5 FOR {select}"
    assert bounded(select, 9.5, is_mariadb=False) == (
        "SELECT /*+ MAX_EXECUTION_TIME(9500) */ a FROM (SELECT b FROM c) AS d"
    )


@pytest.mark.parametrize("timeout", [0.1, 1.0, 5.0, 60.0])
def test_the_statement_limit_is_shorter_than_the_driver_timeout(timeout: float) -> None:

    options = DatabaseOptions(timeout=timeout)
    arguments = _mysql_args(options, takes_long=False)
    assert 0 < statement_limit(options) < arguments["read_timeout"]


async def test_a_slow_search_of_the_audit_log_fails_with_find_too_slow(
    hasty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hasty.record_events([an_event()])
    hasty._statement_limit = 1.0
    is_mysql = hasty._engine.dialect.name == "mysql"
    sleep = func.sleep(SLEEP) == 0 if is_mysql else cast(func.pg_sleep(SLEEP), Text) == ""
    with monkeypatch.context() as slowed:
        slowed.setattr(audit_listing, "_conditions", lambda connection, wanted: [sleep])
        statements = statements_of_reads(hasty)
        with pytest.raises(DeadlineExceededError) as caught:
            await hasty.list_audit_events(AuditFilter())
    assert caught.value.reason == "FIND_TOO_SLOW"
    assert len(statements) == 1
    assert not hasty._reader._is_away
    assert len((await hasty.list_audit_events(AuditFilter())).events) == 1
