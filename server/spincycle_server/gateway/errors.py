"""Answers that are no method's: no such route, body too large, and so on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from spincycle_grpc.v1.error_pb2 import Error
from spincycle_grpc.wire import encode

Header: TypeAlias = tuple[bytes, bytes]


class HttpError(Exception):
    """An answer that is no method's."""

    def __init__(self, status: int, message: str, headers: Sequence[Header] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


def header_lines(headers: Iterable[Header]) -> bytes:
    """Returns headers as they are sent, each a line."""
    return b"".join(b"%s: %s\r\n" % header for header in headers)


def error_body(message: str) -> bytes:
    """Returns the body of an error that is its message alone, written as all JSON here is."""
    return b'{"message":' + encode(Error(message=message), "message") + b"}\n"
