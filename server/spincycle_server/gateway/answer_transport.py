"""Joins the head of an answer with its body, so that a small answer takes one system call and one packet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_MAX_JOINED = 32_768
"""The largest body in bytes that is copied behind its head. A longer copy costs more than a system call."""


class AnswerTransport:
    """The transport of a connection, for the answer to one request.

    The head waits for the body, which follows at once. The head of an answer to HEAD does not wait.

    Args:
        transport: The transport of the connection.
        close: Called instead of the transport's `close`.
        has_body: Whether a body follows the head.
    """

    __slots__ = ("_has_body", "_head", "_write", "close", "is_closing")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None], *, has_body: bool) -> None:
        self._write: Callable[[bytes], None] = transport.write
        self._head = b""
        self._has_body = has_body
        self.is_closing: Callable[[], bool] = transport.is_closing
        self.close = close

    def write(self, data: bytes) -> None:
        """Writes a part of the answer: first the head, then the body. "100 Continue" may come before."""
        if self._has_body and data[9:12] != b"100":
            self._has_body = False  # The next part is the body.
            self._head = data
        elif self._head:
            head, self._head = self._head, b""
            if len(data) > _MAX_JOINED:
                self._write(head)
                head = b""
            self._write(head + data if head else data)
        else:
            self._write(data)
