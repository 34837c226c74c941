"""HTTP clients that use little CPU. Each has one connection and sends one request at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

ANSWER_LIMIT = 60.0
"""Seconds to wait for one answer before the measurement fails."""


@dataclass(slots=True)
class Answers:
    """The results of many calls.

    Attributes:
        seconds: The duration of each call, in the order in which the calls ended.
        statuses: The number of answers by status.
        locations: The Location headers.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    locations: list[str] = field(default_factory=list)

    def require(self, status: int) -> None:
        """Checks that all answers have a status. Refusals are fast and would improve the figures.

        Raises:
            RuntimeError: There was another answer.
        """
        if set(self.statuses) != {status}:
            raise RuntimeError(f"not all calls were answered with {status}: {self.statuses}")


class Connection(asyncio.Protocol):
    """A keep-alive connection with at most one call in flight.

    It parses only the answers that these servers send: a status line, headers with Content-Length, a body.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Stores the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport is not a subclass.

    def data_received(self, data: bytes) -> None:
        """Resolves the call in flight when its answer is complete."""
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
        """Fails the call in flight."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def send(self, data: bytes) -> asyncio.Future[tuple[int, bytes, bytes]]:
        """Sends a request. The future resolves to the status, the head, and the body of the answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return self._answer

    def close(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.close()


def request_bytes(method: str, path: str, host: str, body: bytes = b"") -> bytes:
    """Returns the bytes of a request."""
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
    """Runs clients that each send the next request when the previous answer has arrived.

    Args:
        address: The server, host:port.
        make: Returns the bytes of the next request, or None to end the client.
        clients: The number of connections.
        seconds: How long clients start requests.
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
    """Returns the value that `share` (0 to 1) of the values do not exceed, or 0 if there are no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
