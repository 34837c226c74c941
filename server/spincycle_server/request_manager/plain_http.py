"""One HTTP call to a server whose URL stands in the database.

It sends no credentials, uses no proxy, and follows no redirect. Its time and its answer are limited.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

CONNECT_TIMEOUT = 3.0
"""Seconds to connect, without TLS."""

_CHUNK = 65_536
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
    parts = _checked(base_url)
    try:
        async with asyncio.timeout(limit):
            reader, writer = await _connect(parts, ca_file)
            try:
                writer.write(_request(method, parts, path))
                data = await _read(reader, max_bytes)
            finally:
                writer.transport.abort()  # TLS would wait for the other side to close it.
    except TimeoutError as error:
        raise NoAnswerError(f"no answer within {limit:g} seconds") from error
    except OSError as error:
        raise NoAnswerError(str(error)) from error
    return _parsed(data, method)


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _port(parts)
        (parts.hostname or "").encode("idna")  # As the look-up of the host does.
    except ValueError as error:  # A UnicodeError is one.
        raise NotReachedError(f"{url[:200]!r} is not a URL: {error}") from error
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if not is_plain or parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise NotReachedError(f"{url[:200]!r} is not a URL of HTTP without a password")
    return parts


def _port(parts: SplitResult) -> int:
    return parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)


async def _connect(parts: SplitResult, ca_file: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects.

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
            context = await asyncio.to_thread(ssl.create_default_context, cafile=ca_file or None)
            await writer.start_tls(context, server_hostname=host)
        except BaseException as error:
            writer.transport.abort()
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise NoAnswerError(f"TLS failed: {error}") from error
            raise
    return reader, writer


def _request(method: str, parts: SplitResult, path: str) -> bytes:
    host = parts.netloc
    lines = (
        f"{method} {parts.path.rstrip('/')}{path} HTTP/1.1",
        f"Host: {host}",
        "Content-Length: 0",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


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


def _parsed(data: bytes, method: str) -> Answer:
    received: Any = _Received(data)
    response = http.client.HTTPResponse(received, method=method)
    try:
        response.begin()
        return Answer(response.status, response.read())
    except (http.client.HTTPException, ValueError, OSError) as error:
        raise NoAnswerError(f"the answer is not HTTP: {type(error).__name__}") from error
