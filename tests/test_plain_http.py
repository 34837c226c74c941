"""Calls to servers whose URLs stand in the database: what is sent, and what a bad server can do."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from spincycle_server import plain_http
from spincycle_server.plain_http import Answer, NoAnswerError, NotReachedError, call, post
from tests.certificates import write_ca
from tests.ports import free_port
from tests.request_manager.original_server import original_server


async def get(url: str, *, ca_file: str = "", limit: float = 60.0) -> Answer:
    return await call("GET", url, "/api/v1/x?a=b", ca_file=ca_file, limit=limit, max_bytes=1000)


async def test_a_call_sends_no_more_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with original_server() as server:
        server.body = b"[]"
        assert await get(f"{server.url}/base/") == Answer(200, b"[]")
        assert server.received == [
            "GET /base/api/v1/x?a=b HTTP/1.1\r\n"
            f"Host: {server.url.removeprefix('http://')}\r\n"
            "Content-Length: 0\r\nConnection: close\r\n\r\n"
        ]


async def test_a_redirect_is_not_followed() -> None:
    async with original_server() as other, original_server() as server:
        server.raw = f"HTTP/1.1 302 Found\r\nLocation: {other.url}/\r\nContent-Length: 0\r\n\r\n".encode()
        assert (await get(server.url)).status == 302
        assert other.received == []


async def test_a_chunked_answer_is_read() -> None:
    async with original_server() as server:
        server.raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n"
        assert await get(server.url) == Answer(200, b"[]")


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "ftp://127.0.0.1", "file:///etc/passwd", "http://", "http:///x", "http://user:secret@127.0.0.1",
        "http://127.0.0.1:99999", "http://127.0.0.1:x", "http://127.0.0.1/a b", "http://127.0.0.1/\r\nX: y",
        "http://[::1", "http://größe", "unix:/run/x",
        "http://a..b", "https://.a", f"http://{'a' * 64}:80",
    ],
)  # fmt: skip
async def test_other_urls_are_not_called(url: str) -> None:
    with pytest.raises(NotReachedError, match="is not a URL") as refused:
        await get(url)
    # Whatever is in it may be a secret.
    assert "secret" not in str(refused.value)
    assert not any(part in str(refused.value) for part in (url[7:], url[-8:]) if len(part) > 3)


@pytest.mark.parametrize("status", [100, 103])
async def test_an_interim_head_is_not_the_answer_to_a_post(status: int) -> None:
    interim = f"HTTP/1.1 {status} Later\r\nLink: x\r\n\r\n".encode()
    last = b"HTTP/1.1 500 Broken\r\nRetry-After: 7\r\n\r\n"
    async with original_server() as server:
        server.raw = interim * plain_http.MAX_INTERIM_HEADS + last
        head = await post(server.url, b"x", {}, tls=None, limit=60.0)
        assert (head.status, head.headers["Retry-After"]) == (500, "7")
        server.raw = interim * (plain_http.MAX_INTERIM_HEADS + 1) + last
        with pytest.raises(NoAnswerError, match="more than 10 interim heads"):
            await post(server.url, b"x", {}, tls=None, limit=60.0)
        server.raw = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
        assert (await post(server.url, b"x", {}, tls=None, limit=60.0)).status == 101


async def test_nobody_at_the_url_is_told_from_a_server_that_does_not_answer() -> None:
    with pytest.raises(NotReachedError):
        await get(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(NotReachedError):
        await get("http://no-such-host.invalid")
    async with original_server() as server:
        server.is_silent = True
        with pytest.raises(NoAnswerError, match=r"no answer within 0\.2 seconds"):
            await get(server.url, limit=0.2)


async def test_a_host_that_accepts_no_connection_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "open_connection", hang)
    monkeypatch.setattr(plain_http, "CONNECT_TIMEOUT", 0.01)
    with pytest.raises(NotReachedError, match=r"no connection within 0\.01 seconds"):
        await get("http://127.0.0.1")
    monkeypatch.setattr(plain_http, "CONNECT_TIMEOUT", 60.0)
    with pytest.raises(NoAnswerError, match=r"no answer within 0\.01 seconds"):
        await get("http://127.0.0.1", limit=0.01)


@pytest.mark.parametrize(
    "raw",
    [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", b"HTTP/1.1 x\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
)  # fmt: skip
async def test_an_answer_that_is_not_http_is_no_answer(raw: bytes) -> None:
    async with original_server() as server:
        server.raw = raw
        with pytest.raises(NoAnswerError, match="is not HTTP"):
            await get(server.url)


async def test_an_answer_that_is_too_large_is_no_answer() -> None:
    async with original_server() as server:
        server.body = b"x" * 2_000_000
        with pytest.raises(NoAnswerError, match="more than 1000 bytes"):
            await get(server.url)


async def test_a_server_with_tls_is_verified(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted = write_ca(tmp_path, authority)
    async with original_server(context) as server:
        assert (await get(server.url, ca_file=trusted)).status == 200
        for ca_file in ("", write_ca(tmp_path, trustme.CA(), name="other")):
            with pytest.raises(NoAnswerError, match="TLS failed"):
                await get(server.url, ca_file=ca_file)
        with pytest.raises(NoAnswerError):
            await get(server.url.replace("https", "http"))
        server.is_silent = True
        with pytest.raises(NoAnswerError, match="no answer within"):
            await get(server.url, ca_file=trusted, limit=0.5)
