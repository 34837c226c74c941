"""Heads that the parser accepts although they are ambiguous: another server could read them differently."""

from __future__ import annotations

import re
from collections.abc import Iterable

_HOST = re.compile(rb"[!-+\--.0-?A-~]*")
"""A host and a port, roughly: printable characters without space, comma, slash and @."""


def problem_of(headers: Iterable[tuple[bytes, bytes]], http_version: str) -> str:
    """Returns why a head must be refused with 400; "" if it is good.

    Rules: RFC 9112, sections 3.2 and 6.1. Of all transfer codings, the server supports only chunked.

    Args:
        headers: Names in lower case, and values.
        http_version: The version in the first line, for example "1.1".
    """
    hosts: list[bytes] = []
    codings: list[bytes] = []
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value.strip().lower())
    if len(hosts) > 1 or (not hosts and http_version == "1.1"):
        return "Bad Request: exactly one Host header is required"
    if hosts and _HOST.fullmatch(hosts[0].strip()) is None:
        return "Bad Request: the Host header is not a host"
    if codings and (codings != [b"chunked"] or http_version != "1.1"):
        return "Bad Request: the only Transfer-Encoding may be chunked"
    return ""
