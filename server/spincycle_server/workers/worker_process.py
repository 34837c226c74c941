"""One worker, as its supervisor sees it: its process, its socket, and when it is started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator

from spincycle_server.workers.frames import Frame, FrameReader, Kind, encode
from spincycle_server.workers.restarts import Restarts

MAX_UNREAD = 32 * 1024 * 1024
"""Bytes that wait for a worker that does not read. Further messages are dropped."""

_READ = 256 * 1024


class WorkerProcess:
    """A place for a worker. A process that ends is followed by another one.

    Args:
        number: The number of the worker, from 1.

    Attributes:
        number: This number.
        pid: The process; None while there is none.
        is_listening: Whether the process serves.
        starts_at: When the next process starts, by the clock of `time.monotonic`; None if none starts.
        alive_at: When the process has last shown that it runs.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid: int | None = None
        self.is_listening = False
        self.starts_at: float | None = None
        self.alive_at = 0.0
        self._listens_since = 0.0
        self._socket: socket.socket | None = None
        self._frames = FrameReader()
        self._unsent = bytearray()
        self._restarts = Restarts()

    @property
    def descriptor(self) -> int | None:
        """The descriptor of the socket to the process; None if there is none."""
        return None if self._socket is None else self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether messages wait to be sent."""
        return bool(self._unsent)

    def begin(self, pid: int, connection: socket.socket) -> None:
        """Notes a process that was started.

        Args:
            pid: Its process id.
            connection: The socket to it.
        """
        connection.setblocking(False)
        self.pid, self._socket = pid, connection
        self.is_listening = False
        self.starts_at = None
        self.alive_at = time.monotonic()
        self._frames, self._unsent = FrameReader(), bytearray()

    def listens(self) -> None:
        """Notes that the process serves."""
        self.is_listening = True
        self._listens_since = self.alive_at = time.monotonic()

    def received(self) -> Iterator[Frame]:
        """Yields the messages that have arrived. Closes the socket at its end."""
        while self._socket is not None:
            try:
                data = self._socket.recv(_READ)
                if not data:
                    self.close()
                    return
                yield from self._frames.feed(data)
            except BlockingIOError:
                return
            except (OSError, ValueError):
                self.close()

    def send(self, kind: Kind, data: bytes = b"") -> None:
        """Sends a message, at once or when the process reads."""
        if self._socket is not None and len(self._unsent) + len(data) < MAX_UNREAD:
            self._unsent += encode(kind, data)
            self.flush()

    def flush(self) -> None:
        """Sends as many waiting messages as the process reads now."""
        try:
            while self._unsent and self._socket is not None:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process, if there is one."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def reap(self) -> int | None:
        """Returns the exit status if the process has ended, -n if signal n ended it; otherwise None."""
        if self.pid is None:
            return None
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # Somebody else has collected it.
            pid, status = self.pid, 1 << 8
        return os.waitstatus_to_exitcode(status) if pid else None

    def ended(self) -> float | None:
        """Notes the end of the process. Returns the seconds until the next start; None for no start."""
        served = time.monotonic() - self._listens_since if self.is_listening else 0.0
        self.pid, self.is_listening = None, False
        self.close()
        return self._restarts.pause(served)

    def close(self) -> None:
        """Closes the socket to the process."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
