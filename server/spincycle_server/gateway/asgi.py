"""HTTP requests and answers as ASGI passes them: who sends a request, and how an answer is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from spincycle_server.gateway.answers import Answer
from spincycle_server.gateway.content_coding import MIN_COMPRESSED, compressed, prefers_gzip
from spincycle_server.gateway.errors import Header
from spincycle_server.identity import Credentials

Scope: TypeAlias = Mapping[str, Any]
Send: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]

_GZIP: Header = (b"content-encoding", b"gzip")
_VARY: Header = (b"vary", b"Accept-Encoding")


async def send_answer(answer: Answer, scope: Scope, send: Send) -> None:
    """Sends an answer, compressed if it is large and the client prefers that."""
    status, headers, body = answer
    if len(body) >= MIN_COMPRESSED:
        headers.append(_VARY)
        if prefers_gzip(_joined_header(scope["headers"], b"accept-encoding")):
            headers.append(_GZIP)
            body = await compressed(body)
    await send_as_it_is((status, headers, body), scope, send)


async def send_as_it_is(answer: Answer, scope: Scope, send: Send) -> None:
    """Sends an answer without compressing it."""
    status, headers, body = answer
    length: list[Header] = [] if status in (204, 304) else [(b"content-length", str(len(body)).encode())]
    headers = [*headers, *length]
    connection = scope.get("spincycle.connection")
    if connection is not None and connection.write_whole(send, status, headers, body):
        return
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def path_of(scope: Scope) -> bytes:
    """Returns the path of a request as the client wrote it."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    return path


def credentials_of(scope: Scope) -> Credentials:
    """Returns what a caller presents: headers as text, and the certificate of the connection.

    Values of headers with the same name are joined.
    """
    headers: Sequence[Header] = scope["headers"]
    metadata = {name.decode("latin-1"): text.decode("latin-1") for name, text in headers}
    repeated: frozenset[str] = frozenset()
    if len(metadata) != len(headers):
        counts = Counter(name.decode("latin-1") for name, _ in headers)
        repeated = frozenset(name for name, count in counts.items() if count > 1)
        for name in repeated:
            metadata[name] = _joined_header(headers, name.encode("latin-1"))
    return Credentials(metadata, _peer(scope), scope.get("spincycle.certificate"), repeated)


def _joined_header(headers: Sequence[Header], name: bytes) -> str:
    """Returns the joined values of a header; "" if the client did not send it."""
    return ", ".join(value.decode("latin-1") for key, value in headers if key == name)


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else "unix:"  # Only unix sockets have no client's address.
