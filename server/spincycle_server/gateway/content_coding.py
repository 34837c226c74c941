"""gzip, of answers and of requests."""

from __future__ import annotations

import asyncio
import zlib

from spincycle_server.gateway.bodies import Share
from spincycle_server.gateway.errors import HttpError

MIN_COMPRESSED = 1500
"""Bytes of the smallest body that is compressed; a smaller one fits in one packet anyway."""

_LONG = 65_536
"""Bytes from which on a body is compressed in a thread, so that others need not wait for it."""

_STEP = 262_144
"""Bytes that a request's body is inflated by at a time."""

_LEVEL = 1
_GZIP = 16 + zlib.MAX_WBITS
_CODINGS = ("gzip", "x-gzip")


def prefers_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header takes gzip, and does not like the plain body better."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        coding, _, parameters = part.partition(";")
        weights[coding.strip()] = _weight(parameters)
    gzip = max(weights.get(coding, -1.0) for coding in _CODINGS)
    if gzip < 0:
        gzip = weights.get("*", 0.0)
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


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
    """Returns a body as gzip."""
    return _compress(body) if len(body) < _LONG else await asyncio.to_thread(_compress, body)


def _compress(body: bytes) -> bytes:
    compressor = zlib.compressobj(_LEVEL, wbits=_GZIP)
    return compressor.compress(body) + compressor.flush()


async def decoded(body: bytes, content_encoding: str, limit: int, share: Share) -> bytes:
    """Returns a request's body without its content coding.

    Args:
        body: The body as it was sent.
        content_encoding: The header.
        limit: The most bytes that the result may have.
        share: Is to hold the body and the result.

    Raises:
        HttpError: 415 for a coding that is not gzip, 413 for more than the limit, 400 if it is broken.
        ResourceExhaustedError: All bodies together are over their limit.
    """
    coding = content_encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in _CODINGS:
        raise HttpError(415, "Unsupported Media Type", [(b"accept-encoding", b"gzip")])
    share.hold(len(body))
    return await asyncio.to_thread(_inflate, body, limit, share)


def _inflate(body: bytes, limit: int, share: Share) -> bytes:
    inflater = zlib.decompressobj(_GZIP)
    parts: list[bytes] = []
    size = 0
    view, position = memoryview(body), 0
    while not inflater.eof:
        rest: bytes | memoryview = inflater.unconsumed_tail
        if not rest:  # A step at a time, since what is not yet inflated is copied each time.
            rest = view[position : position + _STEP]
            position += len(rest)
        try:
            part = inflater.decompress(rest, _STEP)
        except zlib.error as error:
            raise HttpError(400, "Bad Request: the body is not gzip, as Content-Encoding says") from error
        size += len(part)
        if size > limit:
            raise HttpError(413, f"Request Entity Too Large: at most {limit} bytes without gzip")
        if not (part or rest or inflater.eof):
            raise HttpError(400, "Bad Request: the gzip of the body ends early")
        share.hold(len(body) + size)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
