"""`spincycle migrate` as an operator runs it, and servers whose database is behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.databases import SERVERS, SharedServers, database_server
from tests.e2e.processes import REPOSITORY, SPECS, running
from tests.limits import COMMAND, PROCESS_END
from tests.store import original


def spincycle(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spincycle_server", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout.strip(), done.stderr.strip()


SERVING = {"SPINCYCLE_SPECS_DIR": str(SPECS), "SPINCYCLE_JOBS": "tests.fixture_jobs:factory"}
BEHIND = "spincycle: the database is behind this program: run `spincycle migrate` with the same --db"


def test_an_original_database_is_taken_over(database_servers: SharedServers, tmp_path: Path) -> None:
    url = database_servers.url("mariadb", tmp_path)
    original.make_original(url)
    address = url.removeprefix("mysql://root@")
    dsn = "root@tcp({})/{}".format(*address.split("/"))
    assert said(spincycle(tmp_path, "migrate", "--check", f"--db={url}")) == (1, "", BEHIND)
    shown = spincycle(tmp_path, "migrate", "--sql", SPINCYCLE_DATABASE_URL=url)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "ALTER TABLE requests ADD COLUMN epoch" in shown.stdout
    assert "CREATE TABLE requests" not in shown.stdout
    assert said(spincycle(tmp_path, "migrate", SPINCYCLE_MYSQL_DSN=dsn)) == (
        0,
        "the database was migrated from no revision to revision 0003\n"
        "5 requests of the original Spin Cycle can now be found by their args",
        "",
    )
    up_to_date = "the database is up to date (revision 0003)"
    assert said(spincycle(tmp_path, "migrate", "--check", f"--db={url}")) == (0, up_to_date, "")
    assert said(spincycle(tmp_path, "migrate", f"--db={url}")) == (0, up_to_date, "")
    assert said(spincycle(tmp_path, "migrate", "--sql", f"--db={url}")) == (
        0, "", "the database is up to date: there are no statements to run"
    )  # fmt: skip


@pytest.mark.parametrize("kind", SERVERS)
def test_servers_refuse_a_database_that_is_behind(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    url = database_servers.url(kind, tmp_path)
    with running("request-manager", "--http=127.0.0.1:0", f"--db={url}", directory=tmp_path) as refused:
        assert refused.process.wait(PROCESS_END) == 1
        refused.close()
        assert refused.events[-1]["message"] == BEHIND
    assert spincycle(tmp_path, "migrate", f"--db={url}").returncode == 0
    with running("request-manager", "--http=127.0.0.1:0", f"--db={url}", directory=tmp_path) as manager:
        manager.wait_for("listening")
        assert manager.terminate() == 0


def test_check_and_sql_are_not_for_one_run(tmp_path: Path) -> None:
    done = spincycle(tmp_path, "migrate", "--check", "--sql")
    assert done.returncode == 2
    assert "use --check or --sql, not both" in done.stderr


@pytest.mark.parametrize("kind", SERVERS)
def test_a_wrong_password_is_told_and_never_shown(kind: str, tmp_path: Path) -> None:
    secret = "hunter2%2Fsafe"  # as it is in a URL; the password has a slash
    with database_server(kind) as server:
        if kind == "mariadb":
            server.execute("CREATE USER cycle IDENTIFIED BY 'another'")
        else:
            server.execute("CREATE ROLE cycle LOGIN PASSWORD 'another'")
            rules = "host all spincycle all trust\nhost all all all scram-sha-256\n"
            (server.directory / "data" / "pg_hba.conf").write_text(rules)
            server.execute("SELECT pg_reload_conf()")
        address = server.fresh_database().rpartition("@")[2]
        scheme = "mysql" if kind == "mariadb" else "postgresql"
        url = f"{scheme}://cycle:{secret}@{address}"
        outputs = [
            "".join(said(spincycle(tmp_path, *arguments, f"--db={url}"))[1:])
            for arguments in (("migrate",), ("migrate", "--check"), ("migrate", "--sql"))
        ]
        with running("request-manager", "--http=127.0.0.1:0", f"--db={url}", directory=tmp_path) as refused:
            assert refused.process.wait(PROCESS_END) == 1
            refused.close()
            outputs.append(refused.log())
        if kind == "mariadb":
            dsn = "cycle:hunter2/safe@tcp({})/{}".format(*address.split("/"))
            outputs.append(spincycle(tmp_path, "server", SPINCYCLE_MYSQL_DSN=dsn, **SERVING).stderr)
        for output in outputs:
            assert "spincycle: the database cannot be used now: " in output
            assert "Access denied for user 'cycle'" in output or "authentication failed" in output
            assert "hunter2" not in output
            assert "Traceback" not in output
