"""A Job Runner of an original for tests: a real HTTP server that answers as told and keeps what it gets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class OriginalServer:
    """A Job Runner of an original.

    Attributes:
        url: Its URL.
        status: The status of its answers.
        body: The body of its answers.
        raw: The whole answer instead; None to compose it from the other two.
        is_silent: Whether it never answers.
        received: The heads of the requests that it got.
    """

    url: str = ""
    status: int = 200
    body: bytes = b""
    raw: bytes | None = None
    is_silent: bool = False
    received: list[str] = field(default_factory=list)

    def runs(self, *jobs: dict[str, Any]) -> None:
        """Sets the running jobs that it lists."""
        self.body = json.dumps(jobs).encode()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one connection."""
        try:
            self.received.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if self.is_silent:
                await reader.read()  # until the caller gives up
            head = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(self.body)}\r\n\r\n".encode()
            writer.write(head + self.body if self.raw is None else self.raw)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def original_server(context: ssl.SSLContext | None = None) -> AsyncIterator[OriginalServer]:
    """Runs such a server on a free port, with TLS if there is a context. It answers all its connections."""
    runner = OriginalServer()
    answering: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(asyncio.create_task(runner.answer(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    runner.url = f"{'http' if context is None else 'https'}://127.0.0.1:{port}"
    async with server:
        yield runner
    await asyncio.gather(*answering)
