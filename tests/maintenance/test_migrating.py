"""Upgrades of empty databases, of an original's databases, and after interruptions at any point."""

from __future__ import annotations

import multiprocessing
import subprocess
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import insert, inspect, text
from sqlalchemy.engine import make_url

from spincycle_grpc.errors import FailedPreconditionError, UnavailableError
from spincycle_server.maintenance.migrating import check_database, upgrade_database, upgrade_sql
from spincycle_server.store import Store, migrations
from spincycle_server.store.schema import requests
from tests.databases import DATABASES, OPTIONS, SharedServers, engine_of, find_binary
from tests.limits import COMMAND
from tests.maintenance import original

KINDS = ("sqlite", "mariadb", "postgresql", "original v1", "original 2.0.8")
NEWEST = "0024"

FORKS = multiprocessing.get_context("forkserver")
"""Starts processes that have loaded this module, which takes most of the time of an upgrade."""
FORKS.set_forkserver_preload([__name__])


def test_the_names_of_the_files_are_the_history_that_alembic_follows() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    followed = [one.revision for one in script.walk_revisions()]
    assert migrations.known_revisions() == followed[::-1]
    assert followed[0] == NEWEST


@pytest.fixture(params=KINDS)
def old_url(request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path) -> str:
    """The URL of a database that is empty, or as an original left it."""
    return make_old(request.param, database_servers, tmp_path)


def make_old(kind: str, servers: SharedServers, directory: Path) -> str:
    if not kind.startswith("original"):
        return servers.url(kind, directory)
    url = servers.url("mariadb", directory)
    original.make_original(url, kind.partition(" ")[2])
    return url


def schema_of(url: str) -> dict[str, Any]:
    """Returns all tables with columns, keys and indexes, and the revision."""
    engine = engine_of(url)
    inspector = inspect(engine)
    schema: dict[str, Any] = {
        table: {
            "columns": {
                column["name"]: (str(column["type"]), column["nullable"], column["default"])
                for column in inspector.get_columns(table)
            },
            "key": inspector.get_pk_constraint(table)["constrained_columns"],
            "indexes": {
                index["name"]: index["column_names"] for index in inspector.get_indexes(table)
            },
        }
        for table in inspector.get_table_names()
    }  # fmt: skip
    with engine.connect() as connection:
        schema["revision"] = (
            connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
        )
    engine.dispose()
    return schema


def pipe_into_client(url: str, statements: str) -> None:
    """Runs statements as a person would, with the database's own client."""
    parsed = make_url(url)
    client = {
        "sqlite": [find_binary("sqlite3"), "-bail", str(parsed.database)],
        "mysql": [
            find_binary("mariadb", "mysql"), "--no-defaults", "--protocol=tcp", "-h127.0.0.1", "-uroot",
            f"-P{parsed.port}", str(parsed.database),
        ],
        "postgresql": [
            find_binary("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h127.0.0.1", "-Uspincycle",
            f"-p{parsed.port}", str(parsed.database),
        ],
    }[parsed.get_backend_name()]  # fmt: skip
    done = subprocess.run(
        client, input=statements.encode(), capture_output=True, timeout=COMMAND, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_an_upgrade_reports_its_revisions_and_does_nothing_twice(old_url: str) -> None:
    done = upgrade_database(old_url, OPTIONS)
    assert done.revisions == ("", NEWEST)
    assert check_database(old_url, OPTIONS) == NEWEST
    assert upgrade_sql(old_url, OPTIONS) == ""
    again = upgrade_database(old_url, OPTIONS)
    assert (again.revisions, again.indexed) == ((NEWEST, NEWEST), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_printed_statements_make_the_same_schema(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    upgraded, piped = (make_old(kind, database_servers, tmp_path) for _ in range(2))
    upgrade_database(upgraded, OPTIONS)
    statements = upgrade_sql(piped, OPTIONS)
    with pytest.raises(FailedPreconditionError):
        check_database(piped, OPTIONS)
    pipe_into_client(piped, statements)
    assert check_database(piped, OPTIONS) == NEWEST
    assert schema_of(piped) == schema_of(upgraded)
    assert upgrade_database(piped, OPTIONS).revisions == (NEWEST, NEWEST)


@pytest.mark.parametrize("kind", ["mariadb", "original v1"])
def test_an_interrupted_upgrade_can_be_run_again(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    """MySQL commits each change of the schema, so an interruption leaves any number of them."""
    whole = make_old(kind, database_servers, tmp_path)
    statements = [part for part in upgrade_sql(whole, OPTIONS).split(";\n") if part.strip()]
    upgrade_database(whole, OPTIONS)
    expected = schema_of(whole)
    for count in range(1, len(statements)):
        url = make_old(kind, database_servers, tmp_path)
        before = original.rows_of(url) if kind != "mariadb" else None
        pipe_into_client(url, ";\n".join(statements[:count]) + ";\n")
        with pytest.raises(FailedPreconditionError, match="spincycle migrate"):
            check_database(url, OPTIONS)
        if count % 2:
            pipe_into_client(url, upgrade_sql(url, OPTIONS))
        upgrade_database(url, OPTIONS)
        assert schema_of(url) == expected, statements[count - 1]
        assert before is None or original.rows_of(url) == before


@pytest.mark.parametrize("kind", DATABASES)
def test_a_database_of_an_earlier_version_gets_the_same_schema(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    earlier, fresh = (database_servers.url(kind, tmp_path) for _ in range(2))
    engine = engine_of(earlier)
    with engine.begin() as connection:
        command.upgrade(migrations._config(connection), "0003")
    engine.dispose()
    assert upgrade_database(earlier, OPTIONS).revisions == ("0003", NEWEST)
    upgrade_database(fresh, OPTIONS)
    assert schema_of(earlier) == schema_of(fresh)


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_requests_of_an_earlier_version_are_no_requests_of_an_original(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    """Revision 0005 as it was released: `runner_id` had no default."""
    earlier, fresh = (database_servers.url(kind, tmp_path) for _ in range(2))
    row = {"request_id": "dc26aor8di16sqictj80", "type": "x", "state": 1, "created_at": 1_795_450_211_000_000}
    engine = engine_of(earlier)
    with engine.begin() as connection:
        command.upgrade(migrations._config(connection), "0005")
        connection.execute(text("ALTER TABLE requests ALTER COLUMN runner_id DROP DEFAULT"))
        connection.execute(insert(requests).values({**row, "runner_id": None, "stop_requested": False}))
    assert upgrade_database(earlier, OPTIONS).left_pending == 0
    with engine.begin() as connection:
        connection.execute(insert(requests).values({**row, "request_id": "dc26aor8di16sqictj90"}))
    engine.dispose()
    assert upgrade_database(earlier, OPTIONS).left_pending == 1
    upgrade_database(fresh, OPTIONS)
    assert schema_of(earlier) == schema_of(fresh)


def test_one_process_upgrades_while_the_others_wait(old_url: str) -> None:
    processes = 4
    with FORKS.Pool(processes, maxtasksperchild=1) as pool:
        done = pool.map(_upgraded_from, [old_url] * processes, chunksize=1)
    assert sorted(done) == ["", *[NEWEST] * (processes - 1)]
    assert check_database(old_url, OPTIONS) == NEWEST


def _upgraded_from(url: str) -> str:
    return upgrade_database(url, OPTIONS).revisions.before


async def test_a_newer_database_is_refused(old_url: str) -> None:
    upgrade_database(old_url, OPTIONS)
    engine = engine_of(old_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    for refused in (upgrade_database, check_database, upgrade_sql):
        with pytest.raises(FailedPreconditionError) as raised:
            refused(old_url, OPTIONS)
        assert raised.value.reason == "DATABASE_TOO_NEW"
    with pytest.raises(FailedPreconditionError, match="newer version of this program"):
        await Store.open(old_url, OPTIONS)


def test_a_check_creates_no_sqlite_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # A database in memory must not become a file of this directory either.
    url = f"sqlite:///{tmp_path / 'none.db'}"
    with pytest.raises(FailedPreconditionError, match="spincycle migrate"):
        check_database(url, OPTIONS)
    assert "CREATE TABLE requests" in upgrade_sql(url, OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_errors_name_what_is_wrong_with_the_database(database_servers: SharedServers, tmp_path: Path) -> None:
    url = database_servers.url("mariadb", tmp_path)
    with pytest.raises(UnavailableError, match="Unknown database 'none'"):
        check_database(url.rpartition("/")[0] + "/none", OPTIONS)
    url = database_servers.url("postgresql", tmp_path)
    with pytest.raises(UnavailableError, match='database "none" does not exist'):
        check_database(url.rpartition("/")[0] + "/none", OPTIONS)
    with pytest.raises(UnavailableError, match="unable to open database file"):
        upgrade_database(f"sqlite:///{tmp_path / 'no' / 'such' / 'directory.db'}", OPTIONS)
    (tmp_path / "text.db").write_text("this is a text, and no database" * 100)
    with pytest.raises(UnavailableError, match="file is not a database"):
        check_database(f"sqlite:///{tmp_path / 'text.db'}", OPTIONS)
