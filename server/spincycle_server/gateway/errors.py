"""Errors as HTTP answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TypeAlias

from spincycle_grpc.errors import InvalidArgumentError, SpinCycleError
from spincycle_grpc.v1.error_pb2 import Error
from spincycle_grpc.wire import encode

Header: TypeAlias = tuple[bytes, bytes]

FRAMEWORK_STATUSES = frozenset({401, 408, 413, 415})
"""The statuses that always have `ErrorFormat.MESSAGE`: the original's HTTP framework sends these errors."""

_FRAMEWORK_REASONS = frozenset({"BAD_JSON", "BAD_PATH", "WRONG_TYPE"})
"""The reasons of INVALID_ARGUMENT that always have `ErrorFormat.MESSAGE`, for the same reason."""


_REASON = re.compile("[A-Z][A-Z0-9_]{0,99}")

_HTTP_REASONS = {
    400: "BAD_HTTP",
    401: "SESSION_ENDED",
    403: "CROSS_SITE_CALL",
    404: "NO_SUCH_PATH",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    408: "REQUEST_TOO_SLOW",
    413: "BODY_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    421: "HOST_NOT_ALLOWED",
    431: "HEAD_TOO_LARGE",
    503: "TOO_MANY_CONNECTIONS",
}
"""The reasons of errors that occur before a method is called, by HTTP status."""


class ErrorFormat(Enum):
    """What the body of an error contains.

    Attributes:
        MESSAGE: The message alone, as errors of the original's Job Runner.
        FULL: Message, request id and HTTP status, as errors of the original's Request Manager.
    """

    MESSAGE = "message"
    FULL = "full"


class HttpError(Exception):
    """An error that the gateway answers itself, without a method. Its format is `ErrorFormat.MESSAGE`."""

    def __init__(self, status: int, message: str, headers: Sequence[Header] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


def reason_header(error: SpinCycleError) -> list[Header]:
    """Returns the header with the reason of a method's error.

    There is none if a plugin has raised the error with a reason of another form.
    """
    fits = _REASON.fullmatch(error.reason)
    return [(b"x-spincycle-reason", error.reason.encode())] if fits else []


def http_reason_header(status: int) -> Header:
    """Returns the header with the reason of an error that occurs before a method is called."""
    return (b"x-spincycle-reason", _HTTP_REASONS.get(status, "BAD_HTTP").encode())


def header_lines(headers: Iterable[Header]) -> bytes:
    """Returns headers as HTTP/1.1 writes them, one line each."""
    return b"".join(b"%s: %s\r\n" % header for header in headers)


def error_body(message: str) -> bytes:
    """Returns the body of an error in `ErrorFormat.MESSAGE`."""
    return b'{"message":' + encode(Error(message=message), "message") + b"}\n"


def formatted_error_body(error: SpinCycleError, error_format: ErrorFormat, status: int) -> bytes:
    """Returns the body of a method's error. Some errors have `ErrorFormat.MESSAGE` on all servers.

    Args:
        error: The error.
        error_format: The format of most errors.
        status: The HTTP status of the answer.
    """
    is_framework = isinstance(error, InvalidArgumentError) and error.reason in _FRAMEWORK_REASONS
    if error_format is ErrorFormat.MESSAGE or is_framework or status in FRAMEWORK_STATUSES:
        return error_body(error.message)
    return encode(Error(message=error.message, request_id=error.request_id, http_status=status)) + b"\n"
