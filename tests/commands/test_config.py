"""`spincycle config` shows values and their sources, and no password."""

from __future__ import annotations

import json
from pathlib import Path

from tests.commands.in_process import outcome, spincycle


def test_it_prints_the_value_and_the_source_of_each_option(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("specs: {dir: from-file}\n")
    done = spincycle(tmp_path, "config", "c.yaml", "--json", SPINCYCLE_DATABASE_URL="mysql://u:s3cret@h/d")
    assert done.returncode == 0
    options = json.loads(done.stdout)
    assert options["specs.dir"] == {"value": "from-file", "source": "c.yaml"}
    assert options["database.url"] == {"value": "mysql://u:***@h/d", "source": "SPINCYCLE_DATABASE_URL"}
    assert options["log.level"] == {"value": "info", "source": "default"}


def test_it_prints_a_table_of_the_options_that_are_set(tmp_path: Path) -> None:
    done = spincycle(tmp_path, "config", "--set", SPINCYCLE_LOG_LEVEL="debug")
    assert done.returncode == 0
    assert [line.split() for line in done.stdout.splitlines() if "log.level" in line] == [
        ["log.level", "debug", "SPINCYCLE_LOG_LEVEL"]
    ]
    assert "specs.dir" not in done.stdout


def test_an_invalid_value_and_an_unknown_variable_are_errors(tmp_path: Path) -> None:
    status, _, error = outcome(spincycle(tmp_path, "config", SPINCYCLE_LOG_LEVEL="loud"))
    assert status == 2
    assert "log.level (SPINCYCLE_LOG_LEVEL)" in error
    status, _, error = outcome(spincycle(tmp_path, "config", SPINCYCLE_LOG_LEVELS="info"))
    assert status == 2
    assert "did you mean SPINCYCLE_LOG_LEVEL?" in error
