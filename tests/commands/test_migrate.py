"""`spincycle migrate` as an operator runs it, and servers with an outdated database."""

from __future__ import annotations

from pathlib import Path

import pytest

from spincycle_grpc.state import State
from tests.commands.in_process import outcome, spincycle
from tests.databases import SERVERS, DatabaseServer, SharedServers
from tests.e2e.processes import running
from tests.limits import PROCESS_END
from tests.maintenance import original
from tests.maintenance.test_migrating import NEWEST

OUTDATED = "spincycle: the database is older than this program: run `spincycle migrate` with the same --db"
UP_TO_DATE = f"the database is up to date (revision {NEWEST})"

LEFT_PENDING = (
    "1 PENDING requests of the original Spin Cycle stay PENDING, because it may have denied them: "
    "start those that must run, or set all to FAIL with --fail-pending"
)


def test_migrate_upgrades_the_database_of_an_original(
    database_servers: SharedServers, tmp_path: Path
) -> None:
    url = database_servers.url("mariadb", tmp_path)
    original.make_original(url)
    address = url.removeprefix("mysql://root@")
    dsn = "root@tcp({})/{}".format(*address.split("/"))
    assert outcome(spincycle(tmp_path, "migrate", "--check", f"--db={url}")) == (1, "", OUTDATED)
    printed = spincycle(tmp_path, "migrate", "--sql", SPINCYCLE_DATABASE_URL=url)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert "ALTER TABLE requests ADD COLUMN epoch" in printed.stdout
    assert "CREATE TABLE requests" not in printed.stdout
    assert outcome(spincycle(tmp_path, "migrate", SPINCYCLE_MYSQL_DSN=dsn)) == (
        0,
        f"the database was migrated from no revision to revision {NEWEST}\n"
        f"5 requests of the original Spin Cycle can now be found by their args\n{LEFT_PENDING}",
        "",
    )
    assert outcome(spincycle(tmp_path, "migrate", "--check", f"--db={url}")) == (0, UP_TO_DATE, "")
    again = (0, f"{UP_TO_DATE}\n{LEFT_PENDING}", "")
    assert outcome(spincycle(tmp_path, "migrate", f"--db={url}")) == again
    assert outcome(spincycle(tmp_path, "migrate", "--sql", f"--db={url}")) == (
        0, "", "the database is up to date: there are no statements to run"
    )  # fmt: skip


def test_pending_requests_of_an_original_fail_on_demand(
    database_servers: SharedServers, tmp_path: Path
) -> None:
    url = database_servers.url("mariadb", tmp_path)
    original.make_original(url)
    before = original.rows_of(url)["requests"]
    done = spincycle(tmp_path, "migrate", "--fail-pending", f"--db={url}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\n1 PENDING requests of the original Spin Cycle are now FAIL\n")
    after = {row[0]: row for row in original.rows_of(url)["requests"]}
    for row in before:
        if row[2] == State.PENDING:
            changed = after[row[0]]
            assert (changed[2], changed[4:6]) == (State.FAIL, row[4:6])
            assert changed[6] is not None
        else:
            assert after[row[0]] == row
    again = spincycle(tmp_path, "migrate", "--fail-pending", f"--db={url}")
    assert outcome(again) == (
        0, f"{UP_TO_DATE}\n0 PENDING requests of the original Spin Cycle are now FAIL", ""
    )  # fmt: skip


@pytest.mark.parametrize("option", ["--check", "--sql"])
def test_fail_pending_excludes_the_options_that_change_nothing(option: str, tmp_path: Path) -> None:
    refused = spincycle(tmp_path, "migrate", "--fail-pending", option)
    assert refused.returncode == 2
    assert "use --fail-pending without --check and --sql" in refused.stderr


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_refuses_an_outdated_database(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    url = database_servers.url(kind, tmp_path)
    with running("request-manager", "--http=127.0.0.1:0", f"--db={url}", directory=tmp_path) as refused:
        assert refused.process.wait(PROCESS_END) == 1
        refused.close()
        assert refused.events[-1]["message"] == OUTDATED
    assert spincycle(tmp_path, "migrate", f"--db={url}").returncode == 0
    with running("request-manager", "--http=127.0.0.1:0", f"--db={url}", directory=tmp_path) as manager:
        manager.wait_for("listening")
        assert manager.terminate() == 0


def test_check_and_sql_exclude_each_other(tmp_path: Path) -> None:
    refused = spincycle(tmp_path, "migrate", "--check", "--sql")
    assert refused.returncode == 2
    assert "use --check or --sql, not both" in refused.stderr


def url_with_wrong_password(server: DatabaseServer, kind: str, password: str) -> str:
    """Creates the user `cycle` with another password, and returns a URL with this one."""
    if kind == "mariadb":
        server.execute("CREATE USER IF NOT EXISTS cycle IDENTIFIED BY 'another'")
    else:
        server.execute("DROP ROLE IF EXISTS cycle")
        server.execute("CREATE ROLE cycle LOGIN PASSWORD 'another'")
        rules = server.directory / "data" / "pg_hba.conf"
        rules.write_text(f"host all cycle all scram-sha-256\n{rules.read_text()}")
        server.execute("SELECT pg_reload_conf()")
    address = server.fresh_database().rpartition("@")[2]
    scheme = "mysql" if kind == "mariadb" else "postgresql"
    return f"{scheme}://cycle:{password}@{address}"


@pytest.mark.parametrize("kind", SERVERS)
def test_a_wrong_password_is_reported_but_never_shown(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    password = "hunter2%2Fsafe"  # as it is written in a URL; the password itself has a slash
    url = url_with_wrong_password(database_servers.get(kind), kind, password)
    outputs = [
        "".join(outcome(spincycle(tmp_path, *arguments, f"--db={url}"))[1:])
        for arguments in (("migrate",), ("migrate", "--check"), ("migrate", "--sql"))
    ]
    environments = [{"SPINCYCLE_DATABASE_URL": url}]
    if kind == "mariadb":
        address = url.rpartition("@")[2]
        dsn = "cycle:hunter2/safe@tcp({})/{}".format(*address.split("/"))
        environments.append({"SPINCYCLE_MYSQL_DSN": dsn})
    for environment in environments:
        with running("server", "--http=127.0.0.1:0", directory=tmp_path, environment=environment) as refused:
            assert refused.process.wait(PROCESS_END) == 1
            refused.close()
            outputs.append(refused.log())
    for output in outputs:
        assert "spincycle: the database cannot be used now: " in output
        assert "Access denied for user 'cycle'" in output or "authentication failed" in output
        assert "hunter2" not in output
        assert "Traceback" not in output
