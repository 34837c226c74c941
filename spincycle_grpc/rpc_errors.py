"""Turns the error of a failed gRPC call into an error of this package."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status as RpcStatus

from spincycle_grpc.errors import ERROR_CLASSES, SpinCycleError, Status, UnavailableError
from spincycle_grpc.tls_errors import ClientTls, closed_while_connecting, probed_error, tls_error

TLS_FAILED = "TLS_FAILED"
"""The reason of an error that says what is wrong with TLS."""

REQUEST_ID_KEY = "requestId"
"""The metadata key in an ErrorInfo that holds the id of the request that an error is about."""

_DETAILS_KEY = "grpc-status-details-bin"

_HTTP_ADDRESS = ("Trying to connect an http1.x server", "missing selected ALPN property")
"""Parts of gRPC's details if a server speaks HTTP/1.1, without and with TLS."""

_TOO_LARGE = "message larger than max"
"""A part of gRPC's details if a message is larger than the sender or the receiver allows."""

_Detail = TypeVar("_Detail", bound=Message)


def explained_error(error: grpc.RpcError, address: str, client: ClientTls) -> SpinCycleError:
    """Returns the error for a failed call, as `error_from_rpc` does, and finds out what is wrong with TLS.

    If the server closed the connection while it opened, this opens another one. It blocks for a few seconds
    then, at most three times `tls_errors.PROBE_TIMEOUT`.
    """
    if _needs_probe(error) and (message := probed_error(address, client)):
        return UnavailableError(message, reason=TLS_FAILED)
    return error_from_rpc(error, address, client)


async def explained_async_error(error: grpc.RpcError, address: str, client: ClientTls) -> SpinCycleError:
    """Returns the error as `explained_error` does, without blocking the event loop."""
    if _needs_probe(error) and (message := await asyncio.to_thread(probed_error, address, client)):
        return UnavailableError(message, reason=TLS_FAILED)
    return error_from_rpc(error, address, client)


def _needs_probe(error: grpc.RpcError) -> bool:
    return error.code() is grpc.StatusCode.UNAVAILABLE and closed_while_connecting(error.details() or "")


def error_from_rpc(
    error: grpc.RpcError,
    address: str,
    client: ClientTls = ClientTls(),  # noqa: B008 (it is frozen)
) -> SpinCycleError:
    """Returns the error of this package for a failed call.

    Errors of a Spin Cycle server keep their message, reason, request id and field. Errors of gRPC itself get
    a message that says what to do.

    Args:
        error: The exception that the call raised.
        address: host:port of the server, for the message.
        client: How the client connects, for the message.
    """
    code: grpc.StatusCode = error.code()
    status = Status.from_grpc_code(code.value[0])
    details = _details(error)
    info = _detail(details, ErrorInfo)
    if info is not None:
        return ERROR_CLASSES[status](
            error.details() or status.name,
            reason=info.reason,
            request_id=info.metadata.get(REQUEST_ID_KEY, ""),
            field=_field(details),
        )
    if status is Status.UNAVAILABLE and (message := tls_error(error.details() or "", address, client)):
        return UnavailableError(message, reason=TLS_FAILED)
    return ERROR_CLASSES[status](_message(status, error.details() or "", address))


def _message(status: Status, details: str, address: str) -> str:
    """Returns the message for an error of gRPC itself, whose details are written for gRPC's developers."""
    if status is Status.UNAVAILABLE:
        if any(part in details for part in _HTTP_ADDRESS):
            problem = "is an HTTP address: use the server's gRPC address, by default the HTTP port plus 10"
            return f"{address} {problem}"
        return f"cannot reach {address}: check the address, and that a server runs there"
    if status is Status.DEADLINE_EXCEEDED:
        return f"{address} did not answer in time: try again, or allow more time"
    if status is Status.UNIMPLEMENTED:
        return f"{address} does not know this method: check that the server has the right kind and version"
    if status is Status.CANCELLED:
        return f"{address} cancelled the call: the server is stopping or overloaded, try again later"
    if status is Status.RESOURCE_EXHAUSTED and _TOO_LARGE in details:
        details = f"a message is too large for gRPC, so send less, or ask for less: {details}"
    return f"{address} returned {status.name}: {details}"


def _details(error: grpc.RpcError) -> RpcStatus:
    metadata: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()  # type: ignore[assignment]
    packed = dict(metadata).get(_DETAILS_KEY, b"")
    return RpcStatus.FromString(packed) if isinstance(packed, bytes) else RpcStatus()


def _detail(status: RpcStatus, kind: type[_Detail]) -> _Detail | None:
    """Returns the first detail of a kind."""
    detail = kind()
    return next((detail for packed in status.details if packed.Unpack(detail)), None)


def _field(status: RpcStatus) -> str:
    bad_request = _detail(status, BadRequest)
    violations = bad_request.field_violations if bad_request is not None else ()
    return violations[0].field if violations else ""
