"""Ctrl-C ends spinc with 130 and without a traceback, at any time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.limits import COMMAND

PROGRAM = """
import atexit, os, signal, sys
from spincycle_grpc.cli import main

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            interrupt()

sys.meta_path.insert(0, Interrupting())
sys.argv = ["spinc", "--addr", "127.0.0.1:1", "--deadline", "5", *ARGUMENTS]
"""


def interrupted(module: str, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Runs spinc, and interrupts it when it imports a module."""
    program = f"MODULE, ARGUMENTS = {module!r}, {arguments!r}\n{PROGRAM}{before}\nmain()"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=COMMAND, check=False
    )


@pytest.mark.parametrize(
    "module", ["spincycle_grpc.cli.app", "click", "spincycle_grpc.cli.commands.ps", "grpc", "google.protobuf"]
)
def test_an_interrupt_during_the_imports_prints_no_traceback(module: str) -> None:
    done = interrupted(module, "ps")
    assert done.returncode == 130
    assert done.stderr in ("", "spinc: interrupted\n", "\n")


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("unknown",)])
def test_an_interrupt_at_the_exit_prints_no_traceback(arguments: tuple[str, ...]) -> None:
    done = interrupted("", *arguments, before="atexit.register(interrupt)")
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


def test_spinc_ignores_interrupts_if_its_caller_does() -> None:
    done = interrupted("click", "--version", before="signal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert (done.returncode, done.stderr) == (0, "")
