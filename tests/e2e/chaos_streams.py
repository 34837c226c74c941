"""The streams of a watch in the chaos test, over gRPC and over HTTP."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import httpx

from spincycle_grpc import Client, tls_credentials
from spincycle_grpc.v1.request_manager_pb2 import WatchResponse
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_grpc.wire import decode
from tests.e2e.chaos_security import Security


class StreamFailedError(Exception):
    """A stream over HTTP has failed as it may."""


class OpenClients:
    """The clients with an open stream, so that another thread can end all streams."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: set[Client | httpx.Client] = set()

    @contextlib.contextmanager
    def holding(self, client: Client | httpx.Client) -> Iterator[None]:
        """Holds a client for as long as its stream is open."""
        with self._lock:
            self._clients.add(client)
        try:
            yield
        finally:
            with self._lock:
                self._clients.discard(client)

    def close(self) -> None:
        """Closes all clients, which ends their streams."""
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            client.close()


@dataclass(frozen=True)
class Target:
    """A Request Manager: the port of its HTTP, what its users need, and where their clients are held."""

    port: int
    security: Security
    token: str
    clients: OpenClients


def over_grpc(
    target: Target, request_id: str, chosen: RequestFilter | None, cursor: str, seconds: float
) -> Generator[WatchResponse, None, None]:
    """Yields the messages of a stream of at most some seconds, until there are no more.

    Raises:
        SpinCycleError: The stream has failed, or the time is over.
    """
    with (
        Client(
            f"127.0.0.1:{target.port + 10}",
            credentials=tls_credentials(ca=target.security.ca_file),
            token=target.token,
            deadline=seconds,
        ) as client,
        target.clients.holding(client),
    ):
        yield from client.watch(request_id, filter=chosen, cursor=cursor, deadline=seconds)


def over_http(
    target: Target, request_id: str, chosen: RequestFilter | None, cursor: str, seconds: float
) -> Generator[WatchResponse, None, None]:
    """Yields the messages like `over_grpc`. The time may be exceeded until the next message.

    Raises:
        StreamFailedError: The stream has failed, or the time is over.
        httpx.TransportError: The server cannot be reached, or has sent nothing for as long.
    """
    path = f"/requests/{request_id}/watch" if request_id else "/watch"
    headers = {"authorization": f"Bearer {target.token}"}
    if cursor:
        headers["last-event-id"] = cursor
    end = time.monotonic() + seconds
    with (
        httpx.Client(verify=target.security.context, timeout=seconds) as http,
        target.clients.holding(http),
        http.stream(
            "GET",
            f"https://127.0.0.1:{target.port}/api/v1{path}",
            params={"type": chosen.type} if chosen else {},
            headers=headers,
        ) as answer,
    ):
        if answer.status_code == 204:
            return
        if answer.status_code != 200:
            assert answer.status_code in (429, 503, 504), answer.read()
            raise StreamFailedError
        for kind, data in _events(answer.iter_lines()):
            if kind == "end":
                return
            if kind == "error":
                raise StreamFailedError(data)
            yield decode(data.encode(), WatchResponse)
            if time.monotonic() > end:
                break
        raise StreamFailedError("the connection has ended, or the time is over")


def _events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Yields type and data of each complete event."""
    kind, data = "message", ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data = value
        elif not line:
            if data:
                yield kind, data
            kind, data = "message", ""
