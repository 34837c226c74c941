"""A proxy between a gRPC client and a server that counts the HTTP/2 pings of the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
_PING, _ACK = 6, 1


class PingCounter:
    """Counts pings.

    Attributes:
        pings: How many pings clients have sent. Acknowledgements do not count.
    """

    def __init__(self, server: str) -> None:
        self._host, _, self._port = server.rpartition(":")
        self._changed = asyncio.Event()
        self.pings = 0

    async def until(self, pings: int) -> None:
        """Waits until clients have sent this many pings."""
        while self.pings < pings:
            self._changed.clear()
            await self._changed.wait()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forwards one connection in both directions until one side ends it."""
        server_reader, server_writer = await asyncio.open_connection(self._host, int(self._port))
        tasks = {
            asyncio.create_task(self._forward_frames(reader, server_writer)),
            asyncio.create_task(_forward(server_reader, writer)),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            server_writer.close()
            writer.close()

    async def _forward_frames(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(_PREFACE))
        while True:
            head = await reader.readexactly(9)
            writer.write(head + await reader.readexactly(int.from_bytes(head[:3])))
            if head[3] == _PING and not head[4] & _ACK:
                self.pings += 1
                self._changed.set()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


@asynccontextmanager
async def counting_pings(server: str) -> AsyncIterator[tuple[PingCounter, str]]:
    """Runs a proxy before a server. Yields it and its address."""
    counter = PingCounter(server)
    proxy = await asyncio.start_server(counter.connect, "127.0.0.1", 0)
    host, port = proxy.sockets[0].getsockname()
    try:
        yield counter, f"{host}:{port}"
    finally:
        proxy.close()
