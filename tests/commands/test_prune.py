"""`spincycle prune` as an operator runs it: in a terminal and elsewhere, interrupted, with wrong options."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pexpect
import pytest

from spincycle_grpc.state import State
from tests.commands.in_process import outcome, spincycle
from tests.commands.test_migrate import OUTDATED
from tests.databases import SharedServers, migrated_sqlite
from tests.e2e.processes import REPOSITORY
from tests.limits import COMMAND
from tests.maintenance.test_retention import fill, rows


@pytest.fixture
def url(tmp_path: Path) -> str:
    return migrated_sqlite(tmp_path / "spincycle.db")


async def test_prune_counts_and_deletes_old_requests(url: str, tmp_path: Path) -> None:
    await fill(url, {State.COMPLETE: 100 * 24, State.FAIL: 91 * 24, State.STOPPED: 80 * 24}, each=3)
    counted = spincycle(tmp_path, "prune", "--older-than", "90d", "--dry-run")
    assert (counted.returncode, counted.stderr) == (0, "")
    assert counted.stdout.startswith("would delete 6 requests that ended before 2")
    assert counted.stdout.endswith("Z: 3 COMPLETE, 3 FAIL\n")
    assert rows(url)["requests"] == 9
    deleted = spincycle(tmp_path, "prune", "--older-than=90d", f"--db={url}")
    assert outcome(deleted) == (0, "deleted 6 requests and 18 job log entries", "")
    assert rows(url)["requests"] == 3
    again = spincycle(tmp_path, "prune", "--older-than", "90d")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith("no request ended before 2")


def at_a_terminal(directory: Path, *arguments: str) -> pexpect.spawn[str]:
    return pexpect.spawn(
        sys.executable,
        ["-m", "spincycle_server", "prune", *arguments],
        cwd=str(directory),
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm-256color", "COLUMNS": "100"},
        encoding="utf-8",
        timeout=COMMAND,
    )


async def test_a_terminal_shows_a_bar_and_an_interruption_keeps_the_rest(url: str, tmp_path: Path) -> None:
    await fill(url, {State.COMPLETE: 100}, each=3000, entries=1)
    terminal = at_a_terminal(tmp_path, "--older-than", "1h30m")
    terminal.expect(r"deleting.*/3000.*requests")
    terminal.kill(signal.SIGINT)
    terminal.expect(r"interrupted after deleting (\d+) of 3000 requests: run the command again to continue")
    assert isinstance(terminal.match, re.Match)
    deleted = int(terminal.match.group(1))
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    left = rows(url)
    assert left["requests"] == left["job_log"] == 3000 - deleted > 0
    terminal = at_a_terminal(tmp_path, "--older-than", "1h30m")
    terminal.expect(rf"deleted {left['requests']} requests and {left['requests']} job log entries")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert rows(url)["requests"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing option '--older-than'"),
        (["--older-than", "90"], "'90' must be a duration, for example 90d, 36h or 1h30m"),
        (["--older-than", "0s"], "must be positive"),
        (["--older-than", "-1d"], "'-1d' must be a duration"),
        (["--older-than", "1d", "--db", "oracle://x/y"], "databases of kind 'oracle' are not supported"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = spincycle(tmp_path, "prune", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_outdated_database_is_refused(database_servers: SharedServers, tmp_path: Path) -> None:
    url = database_servers.url("postgresql", tmp_path)
    assert outcome(spincycle(tmp_path, "prune", "--older-than", "1d", f"--db={url}")) == (1, "", OUTDATED)
