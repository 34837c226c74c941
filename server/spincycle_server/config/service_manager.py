"""The variables with which systemd tells a service how to report its state."""

from __future__ import annotations

import os
from typing import NamedTuple


class ServiceManagerOptions(NamedTuple):
    """What systemd expects of this process.

    Attributes:
        socket: Path of the socket for notifications; a leading "@" means an abstract socket. None: no
            notification is expected.
        watchdog: Seconds within which systemd expects a sign of life; None without a watchdog.
    """

    socket: str | None
    watchdog: float | None


def take_service_manager_options() -> ServiceManagerOptions:
    """Removes systemd's variables from the environment, so that no job speaks for the server."""
    socket = os.environ.pop("NOTIFY_SOCKET", None)
    microseconds = os.environ.pop("WATCHDOG_USEC", "")
    watched = os.environ.pop("WATCHDOG_PID", str(os.getpid()))
    expected = microseconds.isdecimal() and watched == str(os.getpid())
    return ServiceManagerOptions(socket or None, int(microseconds) / 1e6 if expected else None)
