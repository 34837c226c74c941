"""One HTTP call to a server whose URL stands in the database or in an option.

It adds no credentials, uses no proxy, and follows no redirect. Its time and its answer are limited.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.message
import http.client
import io
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

CONNECT_TIMEOUT = 3.0
"""Seconds to connect, without TLS."""

MAX_HEAD = 65_536
"""The largest head of the answer to a POST, in bytes: asyncio's own limit. Its body is not read."""

MAX_INTERIM_HEADS = 10
"""The interim heads, such as 100 and 103, that may come before the answer to a POST."""

_CHUNK = 65_536
_END_OF_HEAD = b"\r\n\r\n"
_INTERIM = re.compile(rb"HTTP/1\.\d 1(?!01)\d\d\s")
"""The beginning of an interim head. 101 is an answer: it says that no further head comes."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


class NotReachedError(Exception):
    """Nobody listens at the URL, or it is not a URL of HTTP. The message says why."""


class NoAnswerError(Exception):
    """Somebody listens there, but does not answer as expected. The message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a call."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer."""

    status: int
    headers: email.message.Message


async def call(
    method: str, base_url: str, path: str, *, ca_file: str, limit: float, max_bytes: int
) -> Answer:
    """Calls a server.

    Args:
        method: GET or PUT. There is no body.
        base_url: The URL of the server.
        path: The rest of the URL, with a query if there is one.
        ca_file: The file with the CAs to trust; "" for those of the system.
        limit: Seconds for the whole call.
        max_bytes: The largest answer, with its headers.

    Raises:
        NotReachedError: Nobody can be reached there.
        NoAnswerError: There is no HTTP answer in time, or it is too large.
    """
    parts = checked_url(base_url)
    request = _request(method, parts, f"{parts.path.rstrip('/')}{path}", {}, b"")
    async with _limited(limit), _connection(parts, ca_file) as (reader, writer):
        writer.write(request)
        data = await _read(reader, max_bytes)
    response = _begun(data, method)
    try:
        return Answer(response.status, response.read())
    except (http.client.HTTPException, ValueError, OSError) as error:
        raise _not_http(error) from error


async def post(
    url: str, body: bytes, headers: Mapping[str, str], *, tls: ssl.SSLContext | None, limit: float
) -> Head:
    """Posts a body, and returns the head of the answer.

    Args:
        url: The whole URL. No error shows more of it than the host.
        body: The body.
        headers: Further headers, whose values must be printable ASCII.
        tls: For a URL of HTTPS; None for the CAs of the system.
        limit: Seconds for the whole call.

    Raises:
        NotReachedError: Nobody can be reached there.
        NoAnswerError: There is no HTTP answer in time, its head is too large, or too many interim heads come
            before it.
    """
    parts = checked_url(url)
    target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    request = _request("POST", parts, target, headers, body)
    async with _limited(limit), _connection(parts, tls) as (reader, writer):
        writer.write(request)
        await writer.drain()
        head = await _read_last_head(reader)
    response = _begun(head, "POST")
    return Head(response.status, response.headers)


@contextlib.asynccontextmanager
async def _limited(limit: float) -> AsyncIterator[None]:
    """Translates errors of the network, and ends after `limit` seconds."""
    try:
        async with asyncio.timeout(limit):
            yield
    except TimeoutError as error:
        raise NoAnswerError(f"no answer within {limit:g} seconds") from error
    except OSError as error:
        raise NoAnswerError(str(error)) from error


@contextlib.asynccontextmanager
async def _connection(
    parts: SplitResult, tls: str | ssl.SSLContext | None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await _connect(parts, tls)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()  # TLS would wait for the other side to close it.


def checked_url(url: str) -> SplitResult:
    """Returns the parts of a URL of HTTP or HTTPS without a password.

    Raises:
        NotReachedError: It is another text. The message does not show it, because it may have a secret.
    """
    try:
        parts = urlsplit(url)
        _port(parts)
        (parts.hostname or "").encode("idna")  # As the look-up of the host does.
    except ValueError:  # A UnicodeError is one. Its message has parts of the URL.
        raise NotReachedError("it is not a URL of HTTP: its host or its port is not valid") from None
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if not is_plain or parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise NotReachedError("it is not a URL of HTTP without a password")
    return parts


def _port(parts: SplitResult) -> int:
    return parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)


async def _connect(
    parts: SplitResult, tls: str | ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects.

    Args:
        parts: The URL.
        tls: The context for HTTPS, or the file with the CAs to trust; "" or None for those of the system.

    Raises:
        NotReachedError: Nobody accepts the connection.
        NoAnswerError: The TLS handshake failed.
        TimeoutError: The whole call takes too long.
    """
    host = parts.hostname or ""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT) as connecting:
            reader, writer = await asyncio.open_connection(host, _port(parts))
    except TimeoutError as error:
        if not connecting.expired():
            raise
        raise NotReachedError(f"no connection within {CONNECT_TIMEOUT:g} seconds") from error
    except OSError as error:
        raise NotReachedError(str(error)) from error
    if parts.scheme == "https":
        try:
            if not isinstance(tls, ssl.SSLContext):
                tls = await asyncio.to_thread(ssl.create_default_context, cafile=tls or None)
            await writer.start_tls(tls, server_hostname=host)
        except BaseException as error:
            writer.transport.abort()
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise NoAnswerError(f"TLS failed: {error}") from error
            raise
    return reader, writer


def _request(method: str, parts: SplitResult, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = (
        f"{method} {target} HTTP/1.1",
        f"Host: {parts.netloc}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode() + body


async def _read_last_head(reader: asyncio.StreamReader) -> bytes:
    for _ in range(MAX_INTERIM_HEADS + 1):
        head = await _read_head(reader)
        if not _INTERIM.match(head):
            return head
    raise NoAnswerError(f"more than {MAX_INTERIM_HEADS} interim heads come before the answer")


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(_END_OF_HEAD)
    except asyncio.IncompleteReadError as error:
        raise NoAnswerError("the connection ended before an answer") from error
    except asyncio.LimitOverrunError as error:
        raise NoAnswerError(f"the head of the answer has more than {MAX_HEAD} bytes") from error


async def _read(reader: asyncio.StreamReader, max_bytes: int) -> bytes:
    data = bytearray()
    while chunk := await reader.read(_CHUNK):
        data += chunk
        if len(data) > max_bytes:
            raise NoAnswerError(f"the answer has more than {max_bytes} bytes")
    return bytes(data)


class _Received:
    """An answer as the socket from which http.client reads."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _begun(data: bytes, method: str) -> http.client.HTTPResponse:
    received: Any = _Received(data)
    response = http.client.HTTPResponse(received, method=method)
    try:
        response.begin()
    except (http.client.HTTPException, ValueError, OSError) as error:
        raise _not_http(error) from error
    return response


def _not_http(error: Exception) -> NoAnswerError:
    return NoAnswerError(f"the answer is not HTTP: {type(error).__name__}")
