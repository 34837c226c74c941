"""Sessions are the same, whatever defaults a database or server has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from spincycle_grpc.errors import FailedPreconditionError, InvalidArgumentError
from spincycle_grpc.structs import to_value
from spincycle_grpc.v1.request_pb2 import ArgType, RequestArg
from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.maintenance.migrating import upgrade_database, upgrade_sql
from spincycle_server.store import DatabaseOptions, Store
from tests.databases import OPTIONS, DatabaseServer, MariaDb, SharedServers
from tests.ports import free_port
from tests.store.samples import a_log_entry, create


def execute(url: str, *statements: str) -> None:
    engine = create_engine(parse_url(url), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


def scalar(url: str, statement: str, options: DatabaseOptions = OPTIONS) -> object:
    engine = make_engine(parse_url(url), options, connections=1, reads=True)
    try:
        with engine.connect() as connection:
            return connection.scalar(text(statement))
    finally:
        engine.dispose()


async def use(url: str, options: DatabaseOptions = OPTIONS) -> None:
    """Migrates a database, and stores and reads a request with its log."""
    await asyncio.to_thread(upgrade_database, url, options)
    store = await Store.open(url, options)
    arg = RequestArg(name="note", type=ArgType.ARG_TYPE_OPTIONAL, given=True, value=to_value("😀\\'", "note"))
    request = await create(store, args=[arg])
    await store.record_log(a_log_entry(request.id, stdout="a\\b'😀"))
    found = await store.get_request(request.id, with_job_chain=True)
    assert found.created_at == request.created_at
    assert [entry.stdout for entry in await store.get_log(request.id)] == ["a\\b'😀"]
    await store.close()


@pytest.fixture
def url(database_servers: SharedServers, tmp_path: Path) -> str:
    return database_servers.url("postgresql", tmp_path)


@pytest.mark.parametrize(
    "setting",
    [
        "datestyle = 'SQL, DMY'",
        "datestyle = 'German'",
        "client_encoding = 'LATIN1'",
        "timezone = 'Asia/Kathmandu'",
        "intervalstyle = 'iso_8601'",
        "bytea_output = 'escape'",
        "standard_conforming_strings = off",
        "synchronous_commit = off",
        "jit = on",
        "statement_timeout = '1ms'",
    ],
)
async def test_defaults_of_a_postgresql_database_do_not_matter(setting: str, url: str) -> None:
    execute(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET {setting}")
    await use(url)
    assert scalar(url, "SHOW synchronous_commit") == "on"
    assert scalar(url, "SHOW jit") == "off"


async def test_the_tables_are_in_the_schema_of_the_option(url: str) -> None:
    execute(url, 'CREATE SCHEMA "Spin ""Cycle"', "CREATE SCHEMA other")
    options = replace(OPTIONS, schema='Spin "Cycle')
    await use(url, options)
    assert scalar(url, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'") == 0
    assert scalar(url, "SELECT current_schema()", options) == 'Spin "Cycle'
    await use(url, replace(OPTIONS, schema="other"))


@pytest.mark.parametrize("how", ["database", "url"])
async def test_the_search_path_stays_without_the_option(how: str, url: str) -> None:
    execute(url, "CREATE SCHEMA elsewhere")
    if how == "database":
        execute(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET search_path = elsewhere")
    else:
        url += "?options=-c%20search_path%3Delsewhere"
    await use(url)
    assert scalar(url, "SELECT current_schema()") == "elsewhere"


def test_a_schema_that_does_not_exist_is_an_error(url: str) -> None:
    with pytest.raises(FailedPreconditionError, match=r"database\.schema") as caught:
        upgrade_database(url, replace(OPTIONS, schema="none"))
    assert caught.value.reason == "NO_SCHEMA"


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_only_postgresql_has_schemas(kind: str, database_servers: SharedServers, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"database\.schema"):
        upgrade_database(database_servers.url(kind, tmp_path), replace(OPTIONS, schema="x"))


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_a_database_whose_encoding_cannot_hold_all_text_is_not_migrated(
    encoding: str, database_servers: SharedServers
) -> None:
    server = database_servers.get("postgresql")
    name = f"encoded_{encoding.lower()}"
    server.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
    for migrate in (upgrade_database, upgrade_sql):
        with pytest.raises(FailedPreconditionError, match=encoding) as caught:
            migrate(server.url(name), OPTIONS)
        assert caught.value.reason == "BAD_ENCODING"
    assert scalar(server.url(name), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


@pytest.mark.parametrize("form", ["authority", "parameters"])
async def test_the_host_that_answers_is_used(form: str, url: str) -> None:
    start, _, database = url.rpartition("/")
    alive = start.rpartition("@")[2]
    dead = f"127.0.0.1:{free_port()}"
    if form == "authority":
        await use(f"postgresql://spincycle@{dead},{alive}/{database}")
    else:
        await use(f"postgresql://spincycle@/{database}?host={dead}&host={alive}")


class OddMariaDb(MariaDb):
    """A MariaDB server with other defaults than usual, and a small packet limit."""

    def command(self) -> list[str]:
        return [
            *super().command(),
            "--sql-mode=ANSI,NO_BACKSLASH_ESCAPES",
            "--default-time-zone=+05:45",
            "--character-set-server=latin1",
            "--init-connect=SET sql_safe_updates=1, sql_select_limit=1, completion_type=1",
            "--max-allowed-packet=1M",
        ]


@pytest.fixture(scope="module")
def odd_server() -> Iterator[DatabaseServer]:
    server = OddMariaDb()
    try:
        server.make_files()
        server.start()
        server.execute("CREATE USER cycle")  # SET of init-connect does not hold for root.
        server.execute("GRANT ALL ON *.* TO cycle")
        yield server
    finally:
        server.close()


@pytest.fixture
def odd_url(odd_server: DatabaseServer) -> str:
    return odd_server.fresh_database().replace("root@", "cycle@")


async def test_defaults_of_a_mariadb_server_do_not_matter(odd_url: str) -> None:
    await use(odd_url)
    assert scalar(odd_url, "SELECT @@completion_type") == "NO_CHAIN"


@pytest.mark.parametrize("characters", ["x" * 1_100_000, "'" * 600_000, "😀" * 300_000, "\\" * 1_048_000])
async def test_a_request_over_the_packet_limit_is_refused_and_others_are_not(
    characters: str, odd_url: str
) -> None:
    await asyncio.to_thread(upgrade_database, odd_url, OPTIONS)
    store = await Store.open(odd_url, OPTIONS)
    arg = RequestArg(name="a", type=ArgType.ARG_TYPE_OPTIONAL, given=True, value=to_value(characters, "a"))
    results = await asyncio.gather(
        create(store), create(store, args=[arg]), create(store), return_exceptions=True
    )
    errors = [result for result in results if isinstance(result, BaseException)]
    assert [error.reason for error in errors if isinstance(error, InvalidArgumentError)] == [
        "TOO_LARGE_TO_STORE"
    ]
    assert len(errors) == 1
    await create(store)
    await store.close()


async def test_many_requests_at_once_fit_into_small_packets(odd_url: str) -> None:
    await asyncio.to_thread(upgrade_database, odd_url, OPTIONS)
    store = await Store.open(odd_url, OPTIONS)
    arg = RequestArg(name="a", type=ArgType.ARG_TYPE_OPTIONAL, given=True, value=to_value("😀" * 10_000, "a"))
    await asyncio.gather(*(create(store, args=[arg]) for _ in range(60)))
    await store.close()
