"""Real server processes for tests. Tests follow a process by its log and end it by its pid."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.databases import migrated_sqlite
from tests.e2e.forked_process import ForkedProcess, fork
from tests.limits import LOG_LINE, PROCESS_END

REPOSITORY = Path(__file__).resolve().parents[2]
SPECS = REPOSITORY / "tests" / "reference" / "data" / "specs"

DEFAULT_DATABASE = "spincycle.db"
DEFAULTS = {
    "PYTHONPATH": str(REPOSITORY),
    "SPINCYCLE_JOBS": "tests.fixture_jobs:factory",
    "SPINCYCLE_SPECS_DIR": str(SPECS),
    "SPINCYCLE_JOB_RUNNER_ADDR": "127.0.0.1:0",
    "SPINCYCLE_RESUME_INTERVAL": "200ms",
    "SPINCYCLE_LOG_FORMAT": "json",
}
"""The variables of each server, unless its test says otherwise."""
ANEW = bool(os.environ.get("START_ANEW")) or sys.platform != "linux"
"""Whether Python starts anew for each server, unless its test says otherwise. Only Linux has `pidfd_open`."""
_OWNERS = frozenset({"server", "request-manager"})
"""The commands that use the default database if they are told no other."""


@dataclass
class ServerProcess:
    """One running `spincycle` command.

    Attributes:
        events: The parsed log lines so far. A line that is not JSON has the level "raw".
    """

    process: subprocess.Popen[bytes] | ForkedProcess
    events: list[dict[str, Any]] = field(default_factory=list)
    _reader: threading.Thread = field(init=False)
    _fresh: queue.Queue[dict[str, Any] | None] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Kills the process if it still runs, and reads the rest of its log."""
        if self.process.poll() is None:
            self.kill()
        self._reader.join(PROCESS_END)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"message": line.decode(errors="replace").rstrip(), "level": "raw"}
            self.events.append(event)
            self._fresh.put(event)
        self._fresh.put(None)

    def wait_for(self, message: str, limit: float = LOG_LINE, **values: object) -> dict[str, Any]:
        """Returns the first log line, past or future, with this message and these values.

        Raises:
            AssertionError: There is no such line within `limit` seconds, or the process ended without one.
        """
        deadline = time.monotonic() + limit
        seen = 0
        while True:
            while seen < len(self.events):
                event = self.events[seen]
                seen += 1
                if event.get("message") == message and values.items() <= event.items():
                    return event
            try:
                ended = self._fresh.get(timeout=max(0.01, deadline - time.monotonic())) is None
            except queue.Empty:
                ended = time.monotonic() >= deadline
            if ended and seen >= len(self.events):
                raise AssertionError(f"the log has no {message!r}:\n{self.log()}")

    def log(self) -> str:
        """Returns the whole log, for the output of a failed test."""
        return "\n".join(json.dumps(event) for event in self.events)

    def address(self, server: str, side: str) -> str:
        """Returns host:port where a server ("request-manager", "job-runner") listens for "http" or "grpc"."""
        return str(self.wait_for("listening", server=server)[side])

    def terminate(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal, waits until the process exits, and returns the exit status.

        Raises:
            AssertionError: It does not exit within PROCESS_END. The message has its last log lines.
        """
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PROCESS_END)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server has not ended:\n{self.log()[-5000:]}") from None

    def kill(self) -> None:
        """Kills the process with SIGKILL."""
        self.process.kill()
        self.process.wait(PROCESS_END)


@contextlib.contextmanager
def running(
    *arguments: str,
    directory: Path,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = ("spincycle_server",),
    anew: bool = ANEW,
    full_log: bool = False,
) -> Iterator[ServerProcess]:
    """Runs `spincycle` with the arguments in a directory, and kills it at the end if it still runs.

    A server that would create the default database finds it, with the current schema.

    Args:
        arguments: The command and its options.
        directory: The working directory.
        environment: Variables that override the defaults for tests.
        program: The module to run, and arguments that come first.
        anew: Whether Python starts anew and loads all modules. Otherwise the process is a fork of one that
            has loaded them, which takes much less CPU time.
        full_log: Whether the disk of the log is full, so that there are no events.
    """
    if arguments and arguments[0] in _OWNERS and not (directory / DEFAULT_DATABASE).exists():
        migrated_sqlite(directory / DEFAULT_DATABASE)
    command = [*program, *arguments]
    variables = {**os.environ, **DEFAULTS, **(environment or {})}
    process: subprocess.Popen[bytes] | ForkedProcess
    if anew or full_log:
        shell = ("sh", "-c", 'exec "$0" "$@" 2>/dev/full') if full_log else ()
        process = subprocess.Popen(
            [*shell, sys.executable, "-m", *command],
            cwd=directory,
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    else:
        process = fork(command, directory=directory, environment=variables)
    server = ServerProcess(process)
    try:
        yield server
    finally:
        server.close()
