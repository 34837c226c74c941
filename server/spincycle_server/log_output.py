"""The output of the log: a write never raises, and never blocks a server for long.

A line that cannot be written is lost and counted. The next line that can be written follows a report of the
number of lost lines.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable

MAX_WAIT = 0.05
"""Seconds in each second that writes may wait, together, for a reader that does not keep up."""

_ATOMIC = 4096
"""Bytes that a pipe takes without blocking if it is writable at all (PIPE_BUF of Linux)."""


class LogOutput:
    """Writes lines to a file descriptor, such as that of standard error.

    Args:
        descriptor: The file descriptor.
        report: Returns the line, without a line break, that reports the number of lost lines.
    """

    def __init__(self, descriptor: int, report: Callable[[int], bytes]) -> None:
        self._descriptor = descriptor
        self._report = report
        self._lock = threading.Lock()
        self._lost = 0
        self._lost_in_all = 0
        self._breaks_off = False
        self._waited_at = 0.0
        self._waited = 0.0
        # A poll would let other threads take the interpreter for each line, and a file never blocks.
        self._never_blocks = _is_file(descriptor)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        os.register_at_fork(after_in_child=self._forget_lock)

    @property
    def lost(self) -> int:
        """The number of lost lines that are not reported yet."""
        return self._lost

    @property
    def lost_in_all(self) -> int:
        """The number of lost lines since the start, also of those that were reported."""
        return self._lost_in_all

    def write(self, line: bytes) -> None:
        """Writes a line, to which it adds the line break. Raises nothing.

        A line of which only the beginning could be written counts as lost.
        """
        with self._lock:
            if self._lost and self._try_write(self._report(self._lost)):
                self._lost = 0
            if self._lost or not self._try_write(line):
                self._lost += 1
                self._lost_in_all += 1

    def write_text(self, data: bytes) -> None:
        """Writes text that is not a line of the log, such as what a job prints. Raises nothing."""
        with self._lock:
            self._write_all(data)

    def _try_write(self, line: bytes) -> bool:
        data = b"\n%b\n" % line if self._breaks_off else line + b"\n"
        written = self._write_all(data)
        if written:
            self._breaks_off = written < len(data)
        return written == len(data)

    def _write_all(self, data: bytes) -> int:
        """Returns the number of bytes that were written."""
        written = 0
        try:
            while written < len(data) and (self._never_blocks or self._is_writable()):
                written += os.write(self._descriptor, data[written : written + _ATOMIC])
        except (OSError, ValueError):
            pass
        return written

    def _is_writable(self) -> bool:
        """Whether a write does not block. It waits, if the writes of this second have not waited too long."""
        if self._poll.poll(0):
            return True
        now = time.monotonic()
        if now - self._waited_at >= 1:
            self._waited_at, self._waited = now, 0.0
        left = MAX_WAIT - self._waited
        if left <= 0:
            return False
        is_writable = bool(self._poll.poll(left * 1000))
        self._waited += time.monotonic() - now
        return is_writable

    def _forget_lock(self) -> None:
        self._lock = threading.Lock()  # In a forked child, the thread that held it does not exist.


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


class _RawOutput(io.RawIOBase):
    """Makes a LogOutput the end of a text stream."""

    def __init__(self, output: LogOutput, descriptor: int) -> None:
        self._output = output
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: object) -> int:
        given = bytes(data)  # type: ignore[call-overload]  # any buffer
        self._output.write_text(given)
        return len(given)


def text_stream(output: LogOutput, descriptor: int) -> io.TextIOWrapper:
    """Returns a stream for `print`, whose writes never raise and never block for long."""
    buffer = io.BufferedWriter(_RawOutput(output, descriptor))
    return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def open_missing_descriptors() -> None:
    """Opens /dev/null for each of stdin, stdout and stderr that is closed.

    Otherwise the next file or socket, such as the database, would get the number of the missing one, and
    what is written to standard error would go into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)
    # SIM115: they stay open until the process ends.
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
