"""Runs `spincycle` in the test's process, which saves the seconds that a process takes to start.

`tests/test_package.py` and `test_imports.py` run the commands as real processes.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

from spincycle_server.__main__ import main

REPOSITORY = Path(__file__).parents[2]


def spincycle(directory: Path, *arguments: str, **environment: str) -> CompletedProcess[str]:
    """Runs a command to its end.

    Args:
        directory: The current directory of the command.
        arguments: The command and its arguments.
        environment: Environment variables that are set for the command.
    """
    stdout, stderr = io.StringIO(), io.StringIO()
    status: object = 0
    with (
        contextlib.chdir(directory),
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", ["spincycle", *arguments]),
        mock.patch.object(sys, "path", [*sys.path]),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    assert isinstance(status, int)
    return CompletedProcess(["spincycle", *arguments], status, stdout.getvalue(), stderr.getvalue())


def outcome(done: CompletedProcess[str]) -> tuple[int, str, str]:
    """Returns the exit status of a command, and its output and error output without surrounding space."""
    return done.returncode, done.stdout.strip(), done.stderr.strip()
