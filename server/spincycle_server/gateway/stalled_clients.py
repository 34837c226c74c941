"""Ends connections whose clients have stopped reading their answers."""

from __future__ import annotations

import asyncio


class StallWatch:
    """Aborts a connection if its client reads nothing for a while although bytes wait to be sent.

    Args:
        transport: The transport of the connection.
        timeout: Seconds within which the client must read some of the waiting bytes.
    """

    __slots__ = ("_loop", "_timeout", "_timer", "_transport", "_unsent")

    def __init__(self, transport: asyncio.Transport, timeout: float) -> None:
        self._transport = transport
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0

    def start(self) -> None:
        """Watches the connection until all bytes are sent."""
        self._unsent = self._transport.get_write_buffer_size()
        if self._unsent and self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._check)

    def stop(self) -> None:
        """Stops watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if self._unsent <= self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self.start()
