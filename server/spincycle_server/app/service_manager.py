"""Tells systemd that the servers are ready, alive, or stopping (`Type=notify` of a unit).

The protocol is one datagram for each message, with lines such as `READY=1`: see sd_notify(3).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import structlog

from spincycle_server.config import ServiceManagerOptions

logger = structlog.get_logger(__name__)

_SIGNS_OF_LIFE = 3
"""How many signs of life fall into the time of the watchdog: one that comes late does no harm."""


@contextlib.contextmanager
def ready(options: ServiceManagerOptions) -> Iterator[None]:
    """Reports that the servers are ready, and at the end that they stop."""
    tell(options, "READY=1")
    yield
    tell(options, "STOPPING=1")


async def give_signs_of_life(options: ServiceManagerOptions) -> None:
    """Feeds the watchdog of systemd from the event loop, so that a hanging server is restarted.

    Runs until cancelled, also while the servers stop. Returns at once without a watchdog.
    """
    while options.watchdog is not None:
        tell(options, "WATCHDOG=1")
        await asyncio.sleep(options.watchdog / _SIGNS_OF_LIFE)


def tell(options: ServiceManagerOptions, message: str) -> None:
    """Sends one message if systemd expects messages. A failure is only logged."""
    if options.socket is None:
        return
    path = "\0" + options.socket[1:] if options.socket.startswith("@") else options.socket
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(message.encode(), path)
    except OSError as error:
        logger.warning("the service manager was not told", state=message, error=str(error))
