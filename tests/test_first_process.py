"""The first process of a container: it forwards signals, collects processes, and exits as its child does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.e2e.processes import REPOSITORY, SPECS, ServerProcess
from tests.e2e.waiting import eventually
from tests.limits import COMMAND, PROCESS_END

PR_SET_CHILD_SUBREAPER = 36


def supervised(program: str) -> subprocess.Popen[str]:
    """Starts a program in a child of a process that inherits orphans, as process 1 does."""
    setup = (
        "import os, signal, sys, time\nfrom spincycle_server.first_process import supervise\nsupervise()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", setup + program],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0),  # noqa: PLW1509
    )


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(3)", 3),
        ("os._exit(255)", 255),
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + 9),
        ("os.kill(os.getpid(), signal.SIGTERM)", 128 + 15),
    ],
)
def test_it_exits_as_its_child_does(program: str, status: int) -> None:
    with supervised(program) as process:
        assert process.wait(COMMAND) == status


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH"])
def test_it_forwards_signals(name: str) -> None:
    program = f"""
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.{name}])
print("ready", flush=True)
print(signal.sigwait([signal.{name}]).name, flush=True)
"""
    with supervised(program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, name))
        assert process.stdout.read() == f"{name}\n"
        assert process.wait(COMMAND) == 0


def test_it_collects_orphans_and_leaves_the_childs_own_children() -> None:
    program = """
for _ in range(5):
    if not (parent := os.fork()):
        if not os.fork():
            time.sleep(0.05)
            os._exit(0)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == 7
print("left", flush=True)
signal.pause()
"""
    with supervised(program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "left\n"
        itself = psutil.Process(process.pid)
        eventually(lambda: len(itself.children()) == 1)  # zombies would stay
        process.send_signal(signal.SIGTERM)
        assert process.wait(PROCESS_END) == 128 + signal.SIGTERM


def test_ctrl_c_reaches_the_child_once() -> None:
    program = """
import itertools
from spincycle_server.first_process import supervise
supervise()
count = itertools.count(1)
signal.signal(signal.SIGINT, lambda *_: print("interrupted", next(count), flush=True))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
while True:
    signal.pause()
"""
    process, terminal = pty.fork()
    if not process:
        os.execv(sys.executable, [sys.executable, "-c", "import os, signal, sys, time\n" + program])
    with os.fdopen(terminal, "r+b", buffering=0) as screen:
        seen = b""
        while b"ready" not in seen:
            seen += screen.read(1000)
        screen.write(b"\x03")
        while b"interrupted 1" not in seen:
            seen += screen.read(1000)
        os.kill(process, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
        with contextlib.suppress(OSError):  # The terminal has no more writers.
            seen += screen.read(1000)
    assert b"interrupted 2" not in seen


@pytest.fixture
def namespace() -> Sequence[str]:
    """The command that starts another one as process 1."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this user cannot make PID namespaces")
    return command


@pytest.mark.parametrize("command", ["server", "request-manager"])
def test_a_server_that_is_process_1_ends_after_sigterm(
    command: str, namespace: Sequence[str], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [*namespace, sys.executable, "-m", "spincycle_server", command, "--http=127.0.0.1:0"],
        cwd=tmp_path,
        env={
            **os.environ, "PYTHONPATH": str(REPOSITORY), "SPINCYCLE_LOG_FORMAT": "json",
            "SPINCYCLE_JOB_RUNNER_ADDR": "127.0.0.1:0", "SPINCYCLE_SPECS_DIR": str(SPECS),
            "SPINCYCLE_JOBS": "tests.fixture_jobs:factory",
        },
        stderr=subprocess.PIPE,
    )  # fmt: skip
    server = ServerProcess(process)
    try:
        server.wait_for("listening")
        [first] = psutil.Process(process.pid).children()
        assert len(first.children()) == 1
        first.terminate()
        assert process.wait(PROCESS_END) == 0
        assert [event["signal"] for event in server.events if event["message"] == "shutting down"] == [
            "SIGTERM"
        ]
    finally:
        server.close()
