"""Notices when a server has no file descriptors left, which the libraries that accept connections hide."""

from __future__ import annotations

import asyncio
import errno
import os
import resource

import structlog

logger = structlog.get_logger(__name__)

INTERVAL = 1.0
"""Seconds between looks, and so between two lines of the log."""

EXHAUSTED = "file descriptors exhausted: connections and commands fail, so raise the limit (ulimit -n)"
AVAILABLE = "file descriptors available again"


async def watch_descriptors() -> None:
    """Logs each second that no file descriptor is left, and when there is one again. Runs until cancelled."""
    is_exhausted = False
    while True:
        await asyncio.sleep(INTERVAL)
        error = _error_of_opening()
        if error is not None:
            whose = "this process" if error.errno == errno.EMFILE else "this machine"
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            logger.error(EXHAUSTED, whose=whose, limit_of_process=limit)
        elif is_exhausted:
            logger.info(AVAILABLE)
        is_exhausted = error is not None


def _error_of_opening() -> OSError | None:
    """Returns the error of opening a file if there is no descriptor for it."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error if error.errno in (errno.EMFILE, errno.ENFILE) else None
    return None
