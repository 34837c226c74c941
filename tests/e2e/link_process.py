"""Forwards connections, in a process of its own, so that busy tests do not slow them down.

It reads commands from stdin, one JSON value a line, answers each on stdout, and ends with stdin:

* `["add", PORT, HOST, TARGET_PORT]` starts a link that listens at a port of 127.0.0.2 (0: any). The answer is
  its address.
* `["flow", NUMBER, DIRECTION, FLOWS]` cuts or heals a direction of the link with that number, from 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from enum import Enum

_PART = 65_536


class Direction(Enum):
    """A direction, from the view of the server that connects."""

    FORTH = "forth"
    BACK = "back"


class Forwarding:
    """Forwards the connections to one address to another address.

    While a direction is cut, nothing passes in it, not even the end of a connection. Afterwards everything
    arrives, because TCP sends again what was lost.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._flows = {direction: asyncio.Event() for direction in Direction}
        for flows in self._flows.values():
            flows.set()
        self._server: asyncio.Server

    async def listen(self, port: int) -> tuple[str, int]:
        """Starts to listen, and returns the address."""
        self._server = await asyncio.start_server(self._forward, "127.0.0.2", port)
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    def set_flow(self, direction: Direction, *, flows: bool) -> None:
        """Cuts or heals a direction."""
        (self._flows[direction].set if flows else self._flows[direction].clear)()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forwards one connection until one side closes it."""
        with contextlib.closing(writer), contextlib.suppress(OSError):
            await self._flows[Direction.FORTH].wait()
            other_reader, other_writer = await asyncio.open_connection(*self._target)
            with contextlib.closing(other_writer):
                await self._pump_both((reader, other_writer), (other_reader, writer))

    async def _pump_both(
        self,
        forth: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        back: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        pumps = [
            asyncio.ensure_future(self._pump(*forth, Direction.FORTH)),
            asyncio.ensure_future(self._pump(*back, Direction.BACK)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        with contextlib.suppress(OSError):
            while part := await reader.read(_PART):
                await self._flows[direction].wait()
                writer.write(part)
                await writer.drain()
        await self._flows[direction].wait()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    links: list[Forwarding] = []
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, *arguments = json.loads(line)
        answer: object = None
        if command == "add":
            port, host, target_port = arguments
            link = Forwarding((host, target_port))
            answer = await link.listen(port)
            links.append(link)
        else:
            number, direction, flows = arguments
            links[number].set_flow(Direction(direction), flows=flows)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main())
