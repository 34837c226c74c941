"""How the project's own clients open channels, and what the errors of a call mean."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status as RpcStatus

from spincycle_grpc.errors import ERROR_CLASSES, SpinCycleError, Status

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The largest message that is sent or taken: a chain of some 200,000 jobs."""

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
"""Options of all channels: a server that comes back is found again within two seconds."""

_DETAILS_KEY = "grpc-status-details-bin"

REQUEST_ID_KEY = "requestId"
"""The key in an ErrorInfo's metadata of the request that an error is about."""


def error_from_rpc(error: grpc.RpcError, address: str) -> SpinCycleError:
    """Returns what a failed call means.

    Args:
        error: What the call raised.
        address: Whom it called, for the sentence.
    """
    code: grpc.StatusCode = error.code()
    status = Status.from_grpc_code(code.value[0])
    info = _error_info(error)
    if info is not None:
        return ERROR_CLASSES[status](
            error.details() or status.name,
            reason=info.reason,
            request_id=info.metadata.get(REQUEST_ID_KEY, ""),
        )
    return ERROR_CLASSES[status](_sentence(status, error.details() or "", address))


def _sentence(status: Status, details: str, address: str) -> str:
    """What to say of an error that comes from gRPC itself, whose details are for its own developers."""
    if status is Status.UNAVAILABLE:
        return f"cannot reach {address}: check the address, and that a server runs there"
    if status is Status.DEADLINE_EXCEEDED:
        return f"{address} did not answer in time: try again, or allow more time"
    if status is Status.UNIMPLEMENTED:
        return f"{address} does not know this method: is it a server of this kind and version?"
    if status is Status.CANCELLED:
        return f"{address} ended the call: it stops, or too many calls wait: try again later"
    return f"{address} answered {status.name}: {details}"


def _error_info(error: grpc.RpcError) -> ErrorInfo | None:
    metadata: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()  # type: ignore[assignment]
    packed = dict(metadata).get(_DETAILS_KEY)
    if packed is None:
        return None
    info = ErrorInfo()
    detail: Any
    for detail in RpcStatus.FromString(packed).details:
        if detail.Unpack(info):
            return info
    return None
