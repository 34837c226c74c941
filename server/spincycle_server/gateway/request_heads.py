"""Heads that the parser accepts although they are ambiguous: another server could read them differently."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_HOST = re.compile(rb"[!-+\--.0-?A-~]*")
"""A host and a port, roughly: printable characters without space, comma, slash and @."""

_ONE_HOST = "Bad Request: exactly one Host header is required"


def problem_of(headers: Iterable[tuple[bytes, bytes]], http_version: str) -> str:
    """Returns why a head must be refused with 400; "" if it is good.

    Rules: RFC 9112, sections 3.2 and 6.1. Of all transfer codings, the server supports only chunked.

    Args:
        headers: Names in lower case, and values.
        http_version: The version in the first line, for example "1.1".
    """
    host: bytes | None = None
    codings: list[bytes] = []
    for name, value in headers:
        if name == b"host":
            if host is not None:
                return _ONE_HOST
            host = value
        elif name == b"transfer-encoding":
            codings.append(value.strip().lower())
    if host is None:
        if http_version == "1.1":
            return _ONE_HOST
    elif not _is_host(host):
        return "Bad Request: the Host header is not a host"
    if codings and (codings != [b"chunked"] or http_version != "1.1"):
        return "Bad Request: the only Transfer-Encoding may be chunked"
    return ""


@lru_cache(maxsize=256)  # A server has few names.
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value.strip()) is not None
