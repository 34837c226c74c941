"""Content codings: gzip for answers and for requests."""

from __future__ import annotations

import asyncio
import zlib

from spincycle_server.gateway.errors import HttpError
from spincycle_server.rpc.body_budget import BodyShare

MIN_COMPRESSED = 1500
"""The smallest body in bytes that is compressed. A smaller body fits in one packet anyway."""

_LONG = 65_536
"""The smallest body in bytes that is compressed in a thread, so that it does not block the event loop."""

_STEP = 262_144
"""The number of bytes that one step of decompression reads and writes at most."""

_LEVEL = 1
_GZIP = 16 + zlib.MAX_WBITS
_CODINGS = ("gzip", "x-gzip")


def prefers_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header accepts gzip and does not prefer the plain body."""
    weights = weights_of(accept_encoding)
    gzip = max(weights.get(coding, -1.0) for coding in _CODINGS)
    if gzip < 0:
        gzip = weights.get("*", 0.0)
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def weights_of(header: str) -> dict[str, float]:
    """Returns the q-values of what an Accept or Accept-Encoding header accepts, by names in lower case."""
    weights: dict[str, float] = {}
    for part in header.lower().split(","):
        name, _, parameters = part.partition(";")
        weights[name.strip()] = _weight(parameters)
    return weights


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, equals, value = parameter.partition("=")
        if name.strip() == "q" and equals:
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


async def compressed(body: bytes) -> bytes:
    """Returns a body compressed with gzip. Large bodies are compressed in a thread."""
    return _compress(body) if len(body) < _LONG else await asyncio.to_thread(_compress, body)


def _compress(body: bytes) -> bytes:
    compressor = zlib.compressobj(_LEVEL, wbits=_GZIP)
    return compressor.compress(body) + compressor.flush()


async def decoded(body: bytes, content_encoding: str, limit: int, share: BodyShare) -> bytes:
    """Returns the decompressed body of a request. It is decompressed in a thread.

    Args:
        body: The body as the client sent it.
        content_encoding: The Content-Encoding header.
        limit: The maximum size of the result in bytes.
        share: Counts the body and the result against the budget.

    Raises:
        HttpError: 415 if the coding is not gzip, 413 if the result exceeds the limit, 400 for invalid gzip.
        ResourceExhaustedError: There is no room for the result. Reason: TOO_MANY_BODIES.
    """
    coding = content_encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in _CODINGS:
        raise HttpError(415, "Unsupported Media Type", [(b"accept-encoding", b"gzip")])
    share.hold(len(body))
    return await asyncio.to_thread(_inflate, body, limit, share)


def _inflate(body: bytes, limit: int, share: BodyShare) -> bytes:
    inflater = zlib.decompressobj(_GZIP)
    parts: list[bytes] = []
    size = 0
    view, position = memoryview(body), 0
    while not inflater.eof:
        rest: bytes | memoryview = inflater.unconsumed_tail
        if not rest:  # One step at a time, because zlib copies the input that it leaves over.
            rest = view[position : position + _STEP]
            position += len(rest)
        try:
            part = inflater.decompress(rest, _STEP)
        except zlib.error as error:
            raise HttpError(
                400, "Bad Request: the body is not gzip, although Content-Encoding says so"
            ) from error
        size += len(part)
        if size > limit:
            raise HttpError(413, f"Request Entity Too Large: at most {limit} bytes when decompressed")
        if not (part or rest or inflater.eof):
            raise HttpError(400, "Bad Request: the gzip data of the body is truncated")
        share.hold(len(body) + size)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
