"""Commands that use the database, with its URL in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.in_process import outcome, spincycle

COMMANDS = {
    "migrate": ("migrate", "--check"),
    "token": ("token", "list"),
    "audit": ("audit",),
    "prune": ("prune", "--older-than=1d"),
}


@pytest.fixture
def url_file(tmp_path: Path) -> str:
    """A file with the URL of an SQLite database that exists."""
    assert spincycle(tmp_path, "migrate", f"--db=sqlite:///{tmp_path}/s3cret.db").returncode == 0
    (tmp_path / "url").write_text(f"sqlite:///{tmp_path}/s3cret.db\n")
    return str(tmp_path / "url")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_reads_the_url_from_the_file(command: str, url_file: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = spincycle(elsewhere, *COMMANDS[command], SPINCYCLE_DATABASE_URL_FILE=url_file)
    assert done.returncode == 0, done.stderr
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_refuses_a_file_that_it_cannot_read(command: str, tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    done = spincycle(tmp_path, *COMMANDS[command], SPINCYCLE_DATABASE_URL_FILE=none)
    said = f"spincycle: option database.url_file: cannot read {none}: No such file or directory"
    assert outcome(done) == (2, "", said)


@pytest.mark.parametrize("command", ["token", "audit", "prune"])
def test_the_command_names_a_missing_sqlite_file_and_does_not_create_it(command: str, tmp_path: Path) -> None:
    done = spincycle(tmp_path, *COMMANDS[command])
    assert (done.returncode, done.stdout) == (1, "")
    assert "the database spincycle.db does not exist: name the database with --db" in done.stderr
    assert not list(tmp_path.iterdir())
