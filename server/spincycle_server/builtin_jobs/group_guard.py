"""Kills the process groups of commands if the server ends without doing so, for example by SIGKILL.

A process of its own, the guard, knows the groups. Its stdin is a pipe that ends with the server, however the
server ends. Groups that left their session are outside this promise.
"""

from __future__ import annotations

import os
import subprocess
import sys

import structlog

from spincycle_server import forked_children

logger = structlog.get_logger(__name__)

_GUARD = """
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
groups = set()
for line in sys.stdin.buffer:
    (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class GroupGuard:
    """Tells the guard which groups run. The guard starts with the first group. Use it in one thread."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._guard: subprocess.Popen[bytes] | None = None

    def add(self, group: int) -> None:
        """Has a group killed when this process ends."""
        self._groups.add(group)
        if self._guard is None or not self._tell(f"+{group}\n"):
            self._start()

    def remove(self, group: int) -> None:
        """Forgets a group: it has ended, or may outlive this process."""
        self._groups.discard(group)
        self._tell(f"-{group}\n")

    def _start(self) -> None:
        """Starts the guard, also if an earlier one was killed."""
        if self._guard is not None:
            assert self._guard.stdin is not None  # noqa: S101 (`Popen` gets a pipe below)
            self._guard.stdin.close()
            self._guard.poll()
        try:
            self._guard = subprocess.Popen(  # noqa: S603 (the program above)
                [sys.executable, "-I", "-S", "-c", _GUARD],
                bufsize=0,
                cwd="/",
                env={},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._guard = None
            logger.warning("commands would outlive this process if it was killed", error=str(error))
            return
        assert self._guard.stdin is not None  # noqa: S101
        os.set_blocking(self._guard.stdin.fileno(), False)
        forked_children.add_descriptor(self._guard.stdin.fileno())
        for group in self._groups:
            self._tell(f"+{group}\n")

    def _tell(self, line: str) -> bool:
        """Returns whether the guard runs. If it does not read, the line is lost."""
        if self._guard is None or self._guard.stdin is None:
            return False
        try:
            os.write(self._guard.stdin.fileno(), line.encode())
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True
