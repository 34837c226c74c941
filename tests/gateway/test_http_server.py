"""The server accepts several new connections in one turn of the event loop."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import uvloop

from spincycle_server.gateway.http_limits import HttpLimits
from spincycle_server.gateway.http_server import ACCEPTED_TOGETHER, HttpServer
from spincycle_server.gateway.refusals import EarlyRefusals, UsersCalls
from spincycle_server.listening import Address
from tests.gateway.wire import request

CONNECTIONS = 8 * ACCEPTED_TOGETHER
LONG_TURN = 0.005
NOBODY_REFUSED = EarlyRefusals(lambda: False, UsersCalls((), (), ()), b"", lambda: None)


async def app(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def turns_until_answered() -> int:
    """Returns how many long turns of the event loop pass until all new connections are answered."""
    server = HttpServer(app, Address("127.0.0.1", 0), None, HttpLimits(), NOBODY_REFUSED)
    await server.start()
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CONNECTIONS)]
    for client in clients:
        client.sendall(request("GET", "/"))
        client.setblocking(False)
    turns = 0
    waiting = list(clients)
    while waiting:
        turns += 1
        time.sleep(LONG_TURN)  # noqa: ASYNC251 (it makes the loop busy)
        await asyncio.sleep(0)
        waiting = [client for client in waiting if not has_answer(client)]
    for client in clients:
        client.close()
    await server.stop(1)
    return turns


def has_answer(client: socket.socket) -> bool:
    try:
        return client.recv(65536).startswith(b"HTTP/1.1 200")
    except BlockingIOError:
        return False


def test_several_connections_are_accepted_in_one_turn() -> None:
    assert uvloop.run(turns_until_answered()) < CONNECTIONS // 2


def test_a_stop_closes_all_listeners() -> None:
    async def begin_and_end() -> int:
        server = HttpServer(app, Address("127.0.0.1", 0), None, HttpLimits(), NOBODY_REFUSED)
        await server.start()
        await server.stop(1)
        return server.port

    port = uvloop.run(begin_and_end())
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))
        again.listen()
