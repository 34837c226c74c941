"""What `spincycle lint` says of specs with one fault of each kind, to the letter.

When a message changes on purpose, write the files anew with
`python -m tests.specs.test_lint_golden`, and read what changed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.limits import COMMAND

DATA = Path(__file__).parent / "data"
REPOSITORY = Path(__file__).parents[2]
GOLDEN = {
    "faulty.txt": ("faulty", "--warnings"),
    "faulty.json": ("faulty", "--warnings", "--format=json"),
    "unreadable.txt": ("unreadable",),
}


def lint(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command where the specs are, so that no path of this machine is in what it says."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "spincycle_server",
            "lint",
            "--jobs=tests.specs.known_jobs:factory",
            *arguments,
        ],
        cwd=DATA,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )


@pytest.mark.parametrize("name", GOLDEN)
def test_lint_prints_the_golden_findings(name: str) -> None:
    done = lint(*GOLDEN[name])
    assert done.stdout == (DATA / name).read_text()
    assert done.returncode == 1


def test_each_fault_has_one_finding() -> None:
    problems = json.loads((DATA / "faulty.json").read_text())
    places = [
        (problem["file"], problem["sequence"], problem["node"], problem["field"]) for problem in problems
    ]
    assert len(places) == len(set(places))
    assert all(problem["line"] and problem["column"] and problem["message"] for problem in problems)


def test_warnings_alone_fail_only_when_strict(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("sequences: {unreached: {nodes: {n: {category: job, type: known}}}}\n")
    for options, status, lines in (((), 0, 0), (("--warnings",), 0, 1), (("--strict",), 1, 1)):
        done = lint(str(tmp_path), *options)
        assert (done.returncode, len(done.stdout.splitlines())) == (status, lines), done.stderr


def test_a_missing_directory_has_its_own_exit_status() -> None:
    done = lint("nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_request_manager_does_not_start_with_errors(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "spincycle_server",
            "request-manager",
            f"--specs={DATA / 'faulty'}",
            "--http=127.0.0.1:0",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "SPINCYCLE_JOBS": "tests.specs.known_jobs:factory"},
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )
    assert done.returncode == 2
    assert "args.yaml:5:23: error: in sequence unnamed-arg" in done.stderr
    assert "`spincycle lint` prints all" in done.stderr
    assert "Traceback" not in done.stderr


def main() -> None:
    """Writes the golden files."""
    for name, arguments in GOLDEN.items():
        (DATA / name).write_text(lint(*arguments).stdout)


if __name__ == "__main__":
    main()
