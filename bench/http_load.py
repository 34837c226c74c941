"""HTTP clients that cost little themselves: each has one connection, and asks one thing after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

ANSWER_LIMIT = 60.0
"""Seconds after which a server that does not answer ends the measurement."""


@dataclass(slots=True)
class Answers:
    """What came of many calls.

    Attributes:
        seconds: How long each took, in the order of their ends.
        statuses: How many had which status.
        locations: The Location of each answer that had one.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    locations: list[str] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One keep-alive connection that has one call under way at a time.

    It reads what these servers send: a status line, headers with Content-Length, a body.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it.

    def data_received(self, data: bytes) -> None:
        """Resolves the call under way once its answer is whole."""
        self._data += data
        head_end = self._data.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self._data[:head_end]).lower()
        start = head.find(b"content-length:") + 15
        length = int(head[start : head.find(b"\r", start) if head.find(b"\r", start) > 0 else None])
        end = head_end + 4 + length
        if len(self._data) < end or self._answer is None:
            return
        answer, self._answer = self._answer, None
        whole, body = bytes(self._data[:head_end]), bytes(self._data[head_end + 4 : end])
        del self._data[:end]
        if not answer.done():
            answer.set_result((int(whole[9:12]), whole, body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails the call under way."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def send(self, data: bytes) -> asyncio.Future[tuple[int, bytes, bytes]]:
        """Sends a request; the future gets the status, the head and the body of the answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return self._answer

    def close(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.close()


def request_bytes(method: str, path: str, host: str, body: bytes = b"") -> bytes:
    """Returns a request as it is sent."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n"
    if method in ("POST", "PUT"):
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


async def connect(address: str) -> Connection:
    """Opens a connection to host:port."""
    host, _, port = address.rpartition(":")
    _, connection = await asyncio.get_running_loop().create_connection(Connection, host, int(port))
    return connection


async def closed_loop(
    address: str, make: Callable[[], bytes | None], *, clients: int, seconds: float
) -> Answers:
    """Has clients that each send the next request when the answer to the one before is there.

    Args:
        address: The server, host:port.
        make: Returns the bytes of the next request; None: there is none.
        clients: How many connections.
        seconds: For how long requests are begun.
    """
    answers = Answers()
    end = time.perf_counter() + seconds

    async def client() -> None:
        connection = await connect(address)
        while (began := time.perf_counter()) < end and (data := make()) is not None:
            async with asyncio.timeout(ANSWER_LIMIT):
                status, head, _ = await connection.send(data)
            answers.seconds.append(time.perf_counter() - began)
            answers.statuses[status] = answers.statuses.get(status, 0) + 1
            place = head.lower().find(b"\r\nlocation:")
            if place > 0:
                answers.locations.append(head[place + 11 :].split(b"\r\n", 1)[0].strip().decode())
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


def percentile(values: list[float], share: float) -> float:
    """Returns the value that this share of the values (0 to 1) do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
