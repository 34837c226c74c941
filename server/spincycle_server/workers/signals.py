"""The signals of the supervisor: they wake its loop, and its workers do not inherit their handling."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Signals:
    """Collects signals until they are taken.

    Attributes:
        wakeup: A socket that becomes readable with each signal.
    """

    def __init__(self) -> None:
        self.wakeup, self._woken = socket.socketpair()
        for one in (self.wakeup, self._woken):
            one.setblocking(False)
        self._received: list[signal.Signals] = []
        self._before: dict[signal.Signals, Any] = {}
        for number in HANDLED:
            self._before[number] = signal.getsignal(number)
            signal.signal(number, self._note)
        self._fd_before = signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)

    def _note(self, number: int, _: object) -> None:
        self._received.append(signal.Signals(number))

    def take(self) -> list[signal.Signals]:
        """Returns the signals since the last call."""
        with contextlib.suppress(BlockingIOError):
            while self.wakeup.recv(4096):
                pass
        received, self._received = self._received, []
        return received

    def restore(self) -> None:
        """Restores the handling of signals that was there before. Call it in a worker, and at the end."""
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.wakeup.close()
        self._woken.close()


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Lets signals wait while the process forks, so that none reaches a worker that cannot handle it yet."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(parent: int) -> None:
    """Ends this process when its parent is gone, however the parent ends. Call it after a fork.

    Linux kills the process then. Elsewhere, the process ends when it notices that the parent's socket is
    closed.

    Args:
        parent: The process id of the parent.
    """
    with contextlib.suppress(OSError, AttributeError, ImportError, MemoryError):
        import ctypes

        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # It ended in between.
        os._exit(1)


_SET_PARENT_DEATH_SIGNAL = 1
