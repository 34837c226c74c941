"""Connections between servers that lose what goes in one direction, as in a one-way partition."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from enum import Enum
from types import TracebackType
from typing import Any, TypeVar

from tests.limits import STEP

_PART = 65_536

_Result = TypeVar("_Result")


class Direction(Enum):
    """A direction, from the view of the server that connects."""

    FORTH = "forth"
    BACK = "back"


class Link:
    """Forwards the connections to one address to another address.

    While a direction is cut, nothing passes in it, not even the end of a connection. Afterwards everything
    arrives, because TCP sends again what was lost.

    Attributes:
        name: For the history of a test.
        listen: Where it listens: host and port.
    """

    def __init__(self, name: str, listen: tuple[str, int], target: tuple[str, int]) -> None:
        self.name = name
        self.listen = listen
        self._target = target
        self._flows = {direction: asyncio.Event() for direction in Direction}
        for flows in self._flows.values():
            flows.set()

    def set_flow(self, direction: Direction, *, flows: bool) -> None:
        """Cuts or heals a direction."""
        (self._flows[direction].set if flows else self._flows[direction].clear)()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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


class Links:
    """All links of a system, on an event loop in a thread of their own. Use it as a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self.links: list[Link] = []

    def __enter__(self) -> Links:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._end()).result(STEP)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STEP)
        self._loop.close()

    def add(self, name: str, port: int, target: tuple[str, int]) -> Link:
        """Starts a link that listens at a port of 127.0.0.2; 0 chooses one."""
        self.links.append(self._run(self._start(name, port, target)).result(STEP))
        return self.links[-1]

    @contextlib.contextmanager
    def cut(self, link: Link, direction: Direction) -> Iterator[None]:
        """Cuts one direction of a link for the length of the block."""
        self._loop.call_soon_threadsafe(lambda: link.set_flow(direction, flows=False))
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(lambda: link.set_flow(direction, flows=True))

    async def _start(self, name: str, port: int, target: tuple[str, int]) -> Link:
        link = Link(name, ("127.0.0.2", port), target)

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(link.forward(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(connected, *link.listen)
        self._servers.append(server)
        link.listen = server.sockets[0].getsockname()[:2]
        return link

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # Closed connections lose their sockets in the next turn.

    def _run(self, work: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)
