"""Starts Python programs as forks of a process that has loaded the servers' modules (`template_process`)."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from tests.e2e.template_process import Start
from tests.limits import PROCESS_END, PROCESS_START

REPOSITORY = Path(__file__).resolve().parents[2]


class ForkedProcess:
    """A child of the template process, with the names of subprocess.Popen.

    Attributes:
        pid: Its process id.
        returncode: Its exit status, or -n if signal n ended it; None until `poll` or `wait` has seen the end.
        stderr: What it writes to standard error.
    """

    def __init__(self, status: socket.socket, stderr: IO[bytes]) -> None:
        self._status = status
        self._lock = threading.Lock()
        self.stderr = stderr
        self.returncode: int | None = None
        self.pid = int(self._receive(PROCESS_START))

    def _receive(self, timeout: float | None) -> bytes:
        """Returns the next message, and b"" if there is none within `timeout` seconds."""
        if not select.select([self._status], [], [], timeout)[0]:
            return b""
        message = self._status.recv(100)
        assert message, "the template process has ended"
        return message

    def poll(self) -> int | None:
        """Returns the exit status if the process has ended."""
        return self._look(0)

    def _look(self, timeout: float) -> int | None:
        with self._lock:
            if self.returncode is None and (message := self._receive(timeout)):
                self.returncode = int(message)
                self._status.close()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits until the process has ended. Returns its exit status.

        Raises:
            subprocess.TimeoutExpired: It has not ended within `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self._look(0.1)) is None:  # In between, other threads may look.
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Sends a signal unless the process has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends the process with SIGKILL."""
        self.send_signal(signal.SIGKILL)


def fork(program: Sequence[str], *, directory: Path, environment: Mapping[str, str]) -> ForkedProcess:
    """Starts a module with its arguments, as `python -m` does.

    Args:
        program: The name of the module, and the arguments.
        directory: The working directory.
        environment: All variables of the process.
    """
    start = Start(program[0], list(program[1:]), str(directory), dict(environment))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read, write = os.pipe()
    try:
        message = json.dumps(asdict(start)).encode()
        socket.send_fds(_template(), [message], [write, theirs.fileno()])
    finally:
        os.close(write)
        theirs.close()
    return ForkedProcess(ours, os.fdopen(read, "rb"))


@functools.cache
def _template() -> socket.socket:
    """Starts the template process. Returns the socket on which it gets requests."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.template_process", str(theirs.fileno())],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait(PROCESS_END)

    atexit.register(end)
    return ours
