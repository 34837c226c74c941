"""Rows that are read by their keys, on each database: they are those that SQLAlchemy reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    insert,
    select,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Engine

from spincycle_grpc.state import State
from spincycle_server.database import transaction as transactions
from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.database.keyed_read import KeyedRead
from spincycle_server.database.mysql_results import QuickConnection
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.database.troubles import Trouble, trouble_of
from spincycle_server.database.types import Ascii, BoundedText, Microseconds, StateNumber
from tests.databases import DATABASES, OPTIONS, SERVERS, SharedServers, engine_beside, engine_of, engine_with

things = Table(
    "keyed_things",
    MetaData(),
    Column("name", Ascii(20), primary_key=True),
    Column("type", Ascii(40), nullable=True),
    Column("padded", Ascii(6, fixed=True), nullable=True),
    Column("note", BoundedText(100), nullable=True),
    Column("plain", String(100), nullable=True),
    Column("data", LargeBinary().with_variant(mysql.LONGBLOB(), "mysql"), nullable=True),
    Column("at", Microseconds, nullable=True),
    Column("state", StateNumber, nullable=True),
    Column("is_on", Boolean, nullable=True),
    Column("big", BigInteger, nullable=True),
    Column("number", Integer, nullable=True),
    Column("small", SmallInteger, nullable=True),
    mysql_charset="utf8mb4",
)
INSERT = RowStatement(lambda _: insert(things))
QUERY = select(things).order_by(things.c.name)
READ = KeyedRead(lambda _: QUERY, things.c.name)
LOCKING = KeyedRead(lambda _: select(things.c.name, things.c.at).with_for_update(), things.c.name)
EMPTY: dict[str, Any] = {column.name: None for column in things.columns}
NAMES = [
    "a",
    "b",
    "it's",
    "50%",
    "%s",
    "\\",
    "ends\\",
    "a,b",
    ") OR (1=1",
    "",
    "twenty characters ok",
    "?",
    ":key",
]


@pytest.fixture(scope="module", params=DATABASES)
def engine(
    request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """A database with an empty table in it."""
    directory: Path = tmp_path_factory.mktemp("things")
    with engine_with(things.metadata, database_servers.url(request.param, directory)) as engine:
        yield engine


encodable = some.characters(exclude_categories=["Cs"], exclude_characters="\0")
any_row = some.fixed_dictionaries(
    {
        "type": some.none() | some.text(some.characters(codec="ascii", exclude_characters="\0"), max_size=40),
        "padded": some.none() | some.sampled_from(["", "a", "abcdef"]),
        "note": some.none() | some.text(encodable, max_size=20),
        "plain": some.none() | some.text(encodable, max_size=20),
        "data": some.none() | some.binary(max_size=300),
        "at": some.none() | some.integers(10**6, 2**31 * 10**6 - 1),
        "state": some.none() | some.sampled_from(list(State)),
        "is_on": some.none() | some.booleans(),
        "big": some.none() | some.integers(-(2**63), 2**63 - 1),
        "number": some.none() | some.integers(-(2**31), 2**31 - 1),
        "small": some.none() | some.integers(-(2**15), 2**15 - 1),
    }
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=some.dictionaries(some.sampled_from(NAMES), any_row), keys=some.sets(some.sampled_from(NAMES)))
def test_rows_are_those_of_sqlalchemy(
    engine: Engine, rows: dict[str, dict[str, Any]], keys: set[str]
) -> None:
    with engine.connect() as connection:
        connection.begin()
        connection.execute(things.delete())
        if rows:
            connection.execute(insert(things), [EMPTY | row | {"name": name} for name, row in rows.items()])
        expected = connection.execute(QUERY.where(things.c.name.in_(keys))).mappings().all()
        found = READ.rows(Transaction(connection), [*keys])
        assert found == [dict(row) for row in expected]
        assert [[*map(type, row.values())] for row in found] == [
            [*map(type, row.values())] for row in expected
        ]
        assert {row["name"] for row in found} == keys & rows.keys()
        if keys:
            assert [row._asdict() for row in READ.read(connection, [*keys])] == found
        connection.rollback()


def test_a_read_sees_the_changes_before_it(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.begin()
        transaction = Transaction(connection)
        for name in ("a", "b", "c"):
            transaction.change(INSERT, [EMPTY | {"name": name}])
            assert READ.rows(transaction, ["c", name])[0]["name"] == name
        assert READ.rows(transaction, []) == []
        connection.rollback()


@pytest.fixture
def mariadb(database_servers: SharedServers, tmp_path: Path) -> Iterator[Connection]:
    """A connection to a MariaDB database with an empty table, on which a transaction is open."""
    url = database_servers.url("mariadb", tmp_path)
    with engine_with(things.metadata, url) as engine, engine.connect() as connection:
        connection.begin()
        yield connection
        connection.rollback()


def test_changes_and_the_read_after_them_are_one_packet(
    mariadb: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    packets: list[bytes] = []
    run = QuickConnection.run

    def note(connection: QuickConnection, packet: bytes) -> Any:
        packets.append(packet)
        return run(connection, packet)

    monkeypatch.setattr(QuickConnection, "run", note)
    transaction = Transaction(mariadb)
    for name in ("a", "b"):
        transaction.change(INSERT, [EMPTY | {"name": name}])
    assert {row["name"] for row in READ.rows(transaction, ["a", "b", "c"])} == {"a", "b"}
    assert [packet.count(b";\n") for packet in packets] == [2]


def test_changes_too_long_for_one_packet_come_before_the_read(
    mariadb: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "MAX_PACKET", 1000)
    transaction = Transaction(mariadb)
    for name in "abcdef":
        transaction.change(INSERT, [EMPTY | {"name": name, "data": b"x" * 600}])
    assert [row["data"] for row in READ.rows(transaction, [*"fa"])] == [b"x" * 600] * 2


def test_a_change_that_fails_fails_the_read_after_it(mariadb: Connection) -> None:
    transaction = Transaction(mariadb)
    transaction.change(INSERT, [EMPTY | {"name": "a"}])
    transaction.change(INSERT, [EMPTY | {"name": "a"}])
    with pytest.raises(pymysql.err.IntegrityError):
        READ.rows(transaction, ["a"])
    transaction.driver.rollback()
    assert READ.rows(Transaction(mariadb), ["a"]) == []


@pytest.mark.parametrize("kind", SERVERS)
def test_a_read_waits_for_a_lock_of_another_transaction(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    no_wait = {"mysql": "SET innodb_lock_wait_timeout = 0", "postgresql": "SET lock_timeout = '1ms'"}
    engine = engine_of(database_servers.url(kind, tmp_path))
    with engine.begin() as connection:
        things.metadata.create_all(connection)
        connection.execute(insert(things), [{"name": "a"}, {"name": "b"}])
    with engine.connect() as holder, engine.connect() as other:
        holder.begin()
        other.execute(text(no_wait[engine.dialect.name]))
        other.commit()
        assert [row["name"] for row in LOCKING.rows(Transaction(holder), ["a"])] == ["a"]
        other.begin()
        transaction = Transaction(other)
        assert [row["name"] for row in LOCKING.rows(transaction, ["b"])] == ["b"]
        with pytest.raises(Exception, match=r"(?i)lock") as caught:
            LOCKING.rows(transaction, ["a", "b"])
        assert trouble_of(caught.value) is Trouble.CONFLICT
        transaction.driver.rollback()
    engine.dispose()


@pytest.mark.parametrize("kind", SERVERS)
def test_a_broken_connection_is_away(kind: str, database_servers: SharedServers, tmp_path: Path) -> None:
    engine = engine_of(database_servers.url(kind, tmp_path))
    with engine.connect() as connection:
        connection.begin()
        transaction = Transaction(connection)
        transaction.driver.close()
        with pytest.raises((pymysql.err.InterfaceError, psycopg.OperationalError)) as caught:
            READ.rows(transaction, ["a"])
        assert trouble_of(caught.value) is Trouble.AWAY
        connection.invalidate()
    engine.dispose()


@contextlib.contextmanager
def reading(url: str, connections: int = 1) -> Iterator[Engine]:
    """Yields an engine for reads of a database with an empty table."""
    with engine_with(things.metadata, url):
        engine = make_engine(parse_url(url), OPTIONS, connections=connections, reads=True)
        yield engine
        engine.dispose()


@pytest.mark.parametrize("kind", SERVERS)
def test_a_broken_connection_does_not_return_to_the_pool(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    with reading(database_servers.url(kind, tmp_path)) as engine:
        with engine.connect() as connection:
            connection.connection.driver_connection.close()  # type: ignore[union-attr]  # It has one.
            with pytest.raises((pymysql.err.InterfaceError, psycopg.OperationalError)):
                READ.read(connection, ["a"])
        with engine.connect() as connection:
            assert READ.read(connection, ["a"]) == []


@pytest.mark.parametrize("kind", SERVERS)
def test_after_a_restart_of_the_database_only_one_read_fails(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    with reading(database_servers.url(kind, tmp_path), connections=3) as engine:
        with contextlib.ExitStack() as opened:
            for connection in [opened.enter_context(engine.connect()) for _ in range(3)]:
                connection.connection.driver_connection.close()  # type: ignore[union-attr]  # It has one.
        with (
            engine.connect() as connection,
            pytest.raises((pymysql.err.InterfaceError, psycopg.OperationalError)),
        ):
            READ.read(connection, ["a"])
        with contextlib.ExitStack() as opened:
            for connection in [opened.enter_context(engine.connect()) for _ in range(3)]:
                assert READ.read(connection, ["a"]) == []


@pytest.mark.parametrize("kind", DATABASES)
def test_a_read_outside_of_a_transaction_opens_none(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    url = database_servers.url(kind, tmp_path)
    with reading(url) as engine, engine.connect() as connection:
        assert READ.read(connection, ["a"]) == []
        with engine_beside(url) as other, other.begin() as writing:
            writing.execute(insert(things), [{"name": "a"}])
        assert [row.name for row in READ.read(connection, ["a"])] == ["a"]


def test_a_long_change_leaves_the_read_after_it_to_another_packet(mariadb: Connection) -> None:
    """Together they would be larger than the server takes."""
    mariadb.info[transactions.MAX_PACKET_KEY] = 20_000
    transaction = Transaction(mariadb)
    transaction.change(INSERT, [EMPTY | {"name": "a", "data": b"x" * 19_000}])
    keys = ["a", *(f"missing{number:03}" for number in range(200))]
    assert [row["name"] for row in READ.rows(transaction, keys)] == ["a"]
