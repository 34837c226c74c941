"""The streams of a watch in the chaos test, over gRPC and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import httpx

from spincycle_grpc import AsyncClient, tls_credentials
from spincycle_grpc.v1.request_manager_pb2 import WatchResponse
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_grpc.wire import decode
from tests.e2e.chaos_security import Security

HTTP_TIMEOUT = 5.0


class StreamFailedError(Exception):
    """A stream over HTTP has failed as it may."""


@dataclass(frozen=True)
class Target:
    """A Request Manager: the port of its HTTP, and what its users need."""

    port: int
    security: Security
    token: str


async def over_grpc(
    target: Target, request_id: str, chosen: RequestFilter | None, cursor: str, seconds: float
) -> AsyncGenerator[WatchResponse, None]:
    """Yields the messages of a stream of at most some seconds, until there are no more.

    Raises:
        SpinCycleError: The stream has failed, or the time is over.
    """
    async with AsyncClient(
        f"127.0.0.1:{target.port + 10}",
        credentials=tls_credentials(ca=target.security.ca_file),
        token=target.token,
        deadline=seconds,
    ) as client:
        stream = client.watch(request_id, filter=chosen, cursor=cursor, deadline=seconds)
        async with contextlib.aclosing(stream) as messages:
            async for message in messages:
                yield message


async def over_http(
    target: Target, request_id: str, chosen: RequestFilter | None, cursor: str, seconds: float
) -> AsyncGenerator[WatchResponse, None]:
    """Yields the messages like `over_grpc`.

    Raises:
        StreamFailedError: The stream has failed.
        httpx.TransportError: The server cannot be reached.
        TimeoutError: The time is over.
    """
    path = f"/requests/{request_id}/watch" if request_id else "/watch"
    headers = {"authorization": f"Bearer {target.token}"}
    if cursor:
        headers["last-event-id"] = cursor
    async with (
        asyncio.timeout(seconds),
        httpx.AsyncClient(verify=target.security.context(), timeout=HTTP_TIMEOUT) as http,
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
            assert answer.status_code in (429, 503, 504), await answer.aread()
            raise StreamFailedError
        async for kind, data in _events(answer.aiter_lines()):
            if kind == "end":
                return
            if kind == "error":
                raise StreamFailedError(data)
            yield decode(data.encode(), WatchResponse)
        raise StreamFailedError("the connection has ended")


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, str]]:
    """Yields type and data of each complete event."""
    kind, data = "message", ""
    async for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data = value
        elif not line:
            if data:
                yield kind, data
            kind, data = "message", ""
