"""An answer that is written at once has the bytes of one that uvicorn writes from two ASGI messages."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import pytest
import uvloop

from spincycle_server.gateway.answers import CLOSE, Answer
from spincycle_server.gateway.asgi import Scope, Send, send_as_it_is
from spincycle_server.gateway.http_limits import HttpLimits
from spincycle_server.gateway.http_server import HttpServer
from spincycle_server.gateway.uvicorn_internals import UvicornConnection
from spincycle_server.listening import Address
from tests.gateway.test_http_server import NOBODY_REFUSED
from tests.gateway.wire import request

JSON = (b"content-type", b"application/json")
LAST = "GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"

ANSWERS: Mapping[str, Answer] = {
    "/small": (200, [JSON], b'{"a":1}'),
    "/created": (201, [JSON, (b"location", b"/somewhere"), (b"x-text", "é".encode("latin-1"))], b"{}"),
    "/empty": (200, [], b""),
    "/nothing": (204, [JSON], b""),
    "/unchanged": (304, [], b""),
    "/error": (409, [JSON], b"no"),
    "/large": (200, [JSON], b"x" * 100_000),
    "/close": (400, [CLOSE], b"bye"),
    "/bad-value": (200, [(b"x-text", b"a\r\nb: c")], b"body"),
    "/bad-name": (200, [(b"x text", b"a")], b"body"),
    "/upper": (200, [(b"Location", b"/somewhere")], b"{}"),
    "/last": (200, [], b"last"),
}


class Whole:
    """Counts the answers that are written at once, and those that are not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written: list[bool] = []
        original = UvicornConnection.write_whole

        def counted(*arguments: Any) -> bool:
            self.written.append(original(*arguments))
            return self.written[-1]

        monkeypatch.setattr(UvicornConnection, "write_whole", counted)


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Whole:
    return Whole(monkeypatch)


def received(sent: bytes, *, at_once: bool) -> bytes:
    """Returns all that a server answers to what a client sends, until it ends the connection."""

    async def app(scope: Scope, receive: Any, send: Send) -> None:
        async def send_message(message: Mapping[str, Any]) -> None:
            await send(message)

        if scope["method"] == "POST":
            await receive()
        await send_as_it_is(ANSWERS[scope["path"]], scope, send if at_once else send_message)

    async def exchange() -> bytes:
        server = HttpServer(app, Address("127.0.0.1", 0), None, HttpLimits(), NOBODY_REFUSED)
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(sent)
        answers = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        await server.stop(1)
        return answers

    return re.sub(rb"date: [^\r]+", b"date: now", uvloop.run(exchange()))


@pytest.mark.parametrize("path", ANSWERS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_an_answer_has_the_same_bytes(path: str, method: str, whole: Whole) -> None:
    body = b"{}" if method == "POST" else b""
    sent = request(method, path, body=body) + LAST.encode()
    answers = received(sent, at_once=True)
    is_plain = method != "HEAD" and path in ("/small", "/created", "/empty", "/error", "/large", "/last")
    assert whole.written[0] is is_plain
    assert answers == received(sent, at_once=False)
    assert not any(whole.written[2:])


def test_pipelined_requests_are_answered_in_order(whole: Whole) -> None:
    sent = b"".join(request("GET", path) for path in ("/large", "/small", "/error")) + LAST.encode()
    answers = received(sent, at_once=True)
    assert whole.written == [True, True, True, False]
    assert answers == received(sent, at_once=False)


@pytest.mark.parametrize(
    "head", ["GET /small HTTP/1.0\r\n\r\n", "GET /small HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"]
)
def test_a_connection_that_ends_is_left_to_uvicorn(head: str, whole: Whole) -> None:
    answers = received(head.encode(), at_once=True)
    assert whole.written == [False]
    assert answers == received(head.encode(), at_once=False)
    assert answers.endswith(b'\r\n\r\n{"a":1}')
