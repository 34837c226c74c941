"""Changes that are sent together: values are read back unchanged, and a failure leaves no changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    bindparam,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Engine

from spincycle_grpc.state import State
from spincycle_server.database.literals import literal_of
from spincycle_server.database.mysql_dialect import MySqlDialect
from spincycle_server.database.transaction import MAX_JOINED, MAX_PACKET, RowStatement, Transaction
from spincycle_server.database.troubles import Trouble, trouble_of
from spincycle_server.database.types import Ascii, BoundedText, Microseconds, StateNumber
from tests.databases import DATABASES, SharedServers, engine_with

things = Table(
    "things",
    MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", Ascii(200), nullable=True),
    Column("note", BoundedText(), nullable=True),
    Column("data", LargeBinary().with_variant(mysql.LONGBLOB(), "mysql"), nullable=True),
    Column("at", Microseconds, nullable=True),
    Column("state", StateNumber, nullable=True),
    Column("is_on", Boolean, nullable=True),
    Column("big", BigInteger, nullable=True),
    mysql_charset="utf8mb4",
)
"""One column of each type that is written as part of a statement's text on MySQL."""

INSERT = RowStatement(lambda _: insert(things))
UPDATE = RowStatement(
    lambda _: (
        update(things)
        .where(things.c.id == bindparam("key"))
        .values(note=bindparam("new_note"), data=bindparam("new_data"), at=bindparam("new_at"))
    )
)
EMPTY: dict[str, Any] = {column.name: None for column in things.columns}
UPDATE_JOINED = RowStatement(
    lambda _: (
        update(things)
        .where(things.c.id == bindparam("key"))
        .values({name: bindparam(f"new_{name}") for name in EMPTY if name != "id"})
    ),
    key="key",
)
OTHER = EMPTY | {"id": 1_000_000, "note": "other"}
ODD_TEXTS = [
    "", "'", "''", '"', "\\", "\\'", "\\\\", "\\0", "\n", "\r\n", "\t", "\x1a", "%", "%s", "%%", "%(id)s",
    "?", ":id", "a;b", "'); DROP TABLE things; -- ", "/* x */", "--", "#", "`", "NULL", "Zoë", "日本",
    "\U0001f600", "\x7f\x80", " ", "ends\\",
]  # fmt: skip
ODD_BYTES = [
    b"", b"\0", b"'", b"\\", b"\\'", b"\\\0", b"%", b"%s", b";", b"\n", b"\x1a", b"\xff", b"\xc3(",
    b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xf0\x9f", b"\x80'\\", b"\xbf\x27", b"\x81\x5c",
    bytes(range(256)),
]  # fmt: skip
SECOND = 1_000_000
TIMES = [
    SECOND,
    1_800_000_000 * SECOND,
    1_800_000_000 * SECOND + 1,
    1_800_000_000 * SECOND + 999_999,
    2**31 * SECOND - 1,
]


@pytest.fixture(scope="module", params=DATABASES)
def database(
    request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """A database with an empty table in it."""
    directory: Path = tmp_path_factory.mktemp("things")
    with engine_with(things.metadata, database_servers.url(request.param, directory)) as engine:
        yield engine


@pytest.fixture
def engine(database: Engine) -> Engine:
    """The database, without what tests before have left in it."""
    clear(database)
    return database


def clear(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(things.delete())


def a_row(number: int, **values: Any) -> dict[str, Any]:
    return EMPTY | {"id": number} | values


def write(engine: Engine, *changes: tuple[RowStatement, Sequence[dict[str, Any]]]) -> None:
    """Makes some changes in one transaction."""
    with engine.connect() as connection:
        connection.begin()
        transaction = Transaction(connection)
        for statement, rows in changes:
            transaction.change(statement, rows)
        try:
            transaction.commit()
        except Exception:
            connection.connection.rollback()
            raise


def rows_in(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        found = connection.execute(select(things).order_by(things.c.id)).mappings()
        return [dict(row) for row in found]


def assert_comes_back(engine: Engine, rows: list[dict[str, Any]]) -> None:
    """Writes rows, by inserts, by updates and by updates that MySQL joins, and reads them."""
    clear(engine)
    write(engine, (INSERT, rows))
    assert rows_in(engine) == rows
    renewed = [
        {"key": row["id"], "new_note": row["note"], "new_data": row["data"], "new_at": row["at"]}
        for row in rows
    ]
    write(engine, (UPDATE, [dict(row, new_note="-", new_data=b"-", new_at=SECOND) for row in renewed]))
    assert {row["note"] for row in rows_in(engine)} == {"-"}
    write(engine, (UPDATE, renewed))
    assert rows_in(engine) == rows
    clear(engine)
    write(engine, (INSERT, [a_row(row["id"], note="-") for row in rows] + [OTHER]))
    values = [{f"new_{name}": value for name, value in row.items()} | {"key": row["id"]} for row in rows]
    write(engine, (UPDATE_JOINED, values))
    assert [row for row in rows_in(engine) if row != OTHER] == rows
    assert OTHER in rows_in(engine)
    with engine.begin() as connection:
        connection.execute(things.delete().where(things.c.id == OTHER["id"]))


def test_texts_are_read_back_unchanged(engine: Engine) -> None:
    assert_comes_back(engine, [a_row(number, note=text) for number, text in enumerate(ODD_TEXTS)])


def test_short_texts_are_read_back_unchanged(engine: Engine) -> None:
    rows = [a_row(number, name=text) for number, text in enumerate(ODD_TEXTS)]
    write(engine, (INSERT, rows))
    assert rows_in(engine) == rows


def test_a_zero_byte_in_a_text_is_replaced(engine: Engine) -> None:
    write(engine, (INSERT, [a_row(1, note="a\0b")]))
    assert rows_in(engine)[0]["note"] == "a\N{REPLACEMENT CHARACTER}b"


def test_blobs_are_read_back_unchanged(engine: Engine) -> None:
    assert_comes_back(engine, [a_row(number, data=blob) for number, blob in enumerate(ODD_BYTES)])


def test_times_are_read_back_to_the_microsecond(engine: Engine) -> None:
    assert_comes_back(engine, [a_row(number, at=time) for number, time in enumerate(TIMES)])


def test_numbers_are_read_back_unchanged(engine: Engine) -> None:
    rows = [
        a_row(-(2**31), big=-(2**63), is_on=True, state=State.COMPLETE),
        a_row(0, big=0, is_on=False, state=0),
        a_row(2**31 - 1, big=2**63 - 1, is_on=None, state=State.FAIL),
    ]
    assert_comes_back(engine, rows)


def test_null_is_read_back_as_null_and_not_as_empty(engine: Engine) -> None:
    assert_comes_back(engine, [a_row(1), a_row(2, name="", note="", data=b"")])


encodable = some.characters(exclude_categories=["Cs"], exclude_characters="\0")
any_row = some.fixed_dictionaries(
    {
        "name": some.none() | some.text(some.characters(codec="ascii", exclude_characters="\0"), max_size=40),
        "note": some.none() | some.sampled_from(ODD_TEXTS) | some.text(encodable, max_size=60),
        "data": some.none() | some.sampled_from(ODD_BYTES) | some.binary(max_size=60),
        "at": some.none() | some.integers(SECOND, 2**31 * SECOND - 1),
        "state": some.none() | some.sampled_from(list(State)),
        "is_on": some.none() | some.booleans(),
        "big": some.none() | some.integers(-(2**63), 2**63 - 1),
    }
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=some.lists(any_row, min_size=1, max_size=8))
def test_any_rows_are_read_back_unchanged(engine: Engine, values: list[dict[str, Any]]) -> None:
    assert_comes_back(engine, [a_row(number, **row) for number, row in enumerate(values)])


def test_changes_in_several_packets_are_one_transaction(engine: Engine) -> None:
    """Rows that are longer than what is sent at once, and rows that are so only together."""
    rows = [a_row(number, data=b"'\\\0%;\xff" * (MAX_PACKET // 24)) for number in range(10)]
    rows += [a_row(number, data=b"\xc3(" * MAX_PACKET) for number in range(10, 13)]
    assert_comes_back(engine, rows)
    with pytest.raises(Exception, match=r"(?i)duplicate|unique"):
        write(
            engine,
            (INSERT, [a_row(number + 100, data=row["data"]) for number, row in enumerate(rows)] + rows[:1]),
        )
    assert rows_in(engine) == rows


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_failing_change_rolls_back_the_others(engine: Engine, place: int) -> None:
    write(engine, (INSERT, [a_row(1, note="before")]))
    changes: list[tuple[RowStatement, Sequence[dict[str, Any]]]] = [
        (INSERT, [a_row(10)]),
        (UPDATE, [{"key": 1, "new_note": "after", "new_data": None, "new_at": None}]),
        (INSERT, [a_row(11), a_row(12)]),
        (UPDATE, [{"key": 10, "new_note": "after", "new_data": None, "new_at": None}]),
    ]
    changes.insert(place, (INSERT, [a_row(1, note="again")]))
    with pytest.raises(Exception, match=r"(?i)duplicate|unique") as caught:
        write(engine, *changes)
    assert trouble_of(caught.value) is Trouble.DUPLICATE
    assert rows_in(engine) == [a_row(1, note="before")]
    # The connection is as good as before.
    write(engine, (INSERT, [a_row(2)]))
    assert len(rows_in(engine)) == 2


@pytest.mark.parametrize("rows", [1, 2, MAX_JOINED, MAX_JOINED + 1, 3 * MAX_JOINED])
def test_any_number_of_rows_is_updated(engine: Engine, rows: int) -> None:
    assert_comes_back(engine, [a_row(number, big=number // 3, name="same") for number in range(rows)])


def test_mysql_updates_many_rows_with_one_statement() -> None:
    values = [{"key": number, "new_note": f"n{number}", "new_at": SECOND} for number in range(3)]
    statement = RowStatement(
        lambda _: (
            update(things)
            .where(things.c.id == bindparam("key"))
            .values(note=bindparam("new_note"), at=bindparam("new_at"))
        ),
        key="key",
    )
    dialect = MySqlDialect(paramstyle="format")
    assert [*statement.for_dialect(dialect).texts(values)] == [
        "UPDATE things FORCE INDEX (PRIMARY) SET "
        "note=CASE things.id WHEN 0 THEN 'n0' WHEN 1 THEN 'n1' WHEN 2 THEN 'n2' END, "
        "at='1970-01-01 00:00:01.000000' WHERE things.id IN (0,1,2)"
    ]


@pytest.mark.parametrize("database", ["mariadb"], indirect=True)
def test_mysql_finds_the_rows_by_their_keys(engine: Engine) -> None:
    """Even if they are nearly the whole table: reading it would lock rows of other transactions."""
    write(engine, (INSERT, [a_row(number) for number in range(MAX_JOINED + 1)]))
    changed = [{f"new_{name}": None for name in EMPTY} | {"key": number} for number in range(MAX_JOINED)]
    with engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE TABLE things")
        (statement,) = UPDATE_JOINED.for_dialect(connection.dialect).texts(changed)
        (step,) = connection.exec_driver_sql(f"EXPLAIN {statement}").mappings()
    assert (step["type"], step["key"]) == ("range", "PRIMARY")


def test_a_statement_sees_the_changes_before_it(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.begin()
        transaction = Transaction(connection)
        transaction.change(INSERT, [])
        transaction.change(INSERT, [a_row(1)])
        assert transaction.execute(select(things.c.id)).scalars().all() == [1]
        transaction.change(INSERT, [a_row(2)])
        connection.rollback()  # What was never sent is gone with what was.
    assert rows_in(engine) == []


def test_a_commit_without_changes_commits_what_was_executed(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.begin()
        transaction = Transaction(connection)
        transaction.execute(insert(things), [a_row(1)])
        transaction.commit()
    assert rows_in(engine) == [a_row(1)]


def test_a_column_type_without_a_literal_is_refused_at_compile_time() -> None:
    with pytest.raises(TypeError, match="cannot be written as literals"):
        literal_of(Float(), mysql.dialect())
