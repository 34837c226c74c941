"""SIGHUP reloads, and ends a server only if its terminal is gone."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import httpx

from tests.e2e.processes import REPOSITORY, SPECS, ServerProcess, running
from tests.limits import ANSWER, PROCESS_END


def test_a_server_without_tls_continues_after_sighup(tmp_path: Path) -> None:
    with running("server", "--http=127.0.0.1:0", directory=tmp_path) as server:
        address = server.address("request-manager", "http")
        server.wait_for("reporting")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("reloading certificates")
        assert httpx.get(f"http://{address}/version", timeout=ANSWER).status_code == 200
        assert server.terminate() == 0


def test_a_server_whose_terminal_is_closed_shuts_down(tmp_path: Path) -> None:
    master, terminal = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-m", "spincycle_server", "server", "--http=127.0.0.1:0"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "SPINCYCLE_SPECS_DIR": str(SPECS),
            "SPINCYCLE_JOBS": "tests.fixture_jobs:factory",
            "SPINCYCLE_JOB_RUNNER_ADDR": "127.0.0.1:0",
            "SPINCYCLE_LOG_FORMAT": "json",
        },
        stdin=terminal,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=own_terminal,  # noqa: PLW1509 (the test has no other threads that hold locks)
    )
    server = ServerProcess(process)
    try:
        os.close(terminal)
        server.wait_for("reporting")
        process.send_signal(signal.SIGHUP)
        server.wait_for("reloading certificates")
        os.close(master)
        server.wait_for("shutting down", signal="SIGHUP")
        assert process.wait(PROCESS_END) == 0
    finally:
        server.close()
