"""The lock of a server on its SQLite file, which only one server may use."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from spincycle_grpc.errors import FailedPreconditionError, UnavailableError


class FileLock:
    """A lock on the file `DATABASE-lock`. The system releases it when this process ends, however it ends.

    It is a POSIX lock, so children of this process do not inherit it.

    Args:
        database: The SQLite file.

    Raises:
        FailedPreconditionError: Another process has the lock. Reason: DATABASE_IN_USE.
        UnavailableError: The file cannot be created. Reason: DATABASE_UNAVAILABLE.
    """

    def __init__(self, database: Path) -> None:
        path = Path(f"{database.resolve()}-lock")
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UnavailableError(
                f"the database cannot be used now: cannot open {path}: {error.strerror}",
                reason="DATABASE_UNAVAILABLE",
            ) from error
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return  # The file system has no locks.
            holder = os.pread(self._descriptor, 20, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise FailedPreconditionError(
                f"another server uses the SQLite file {database}{f' (process {holder})' if holder else ''}: "
                "stop it first, give this server a file of its own, or use MariaDB or PostgreSQL, "
                "which several servers can share",
                reason="DATABASE_IN_USE",
            ) from error
        with contextlib.suppress(OSError):  # The number only helps the reader of the error.
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Releases the lock."""
        os.close(self._descriptor)
