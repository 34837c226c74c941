"""Errors as gRPC statuses. Their details are messages of google.rpc.

Every status has an ErrorInfo with the reason and the request id. RESOURCE_EXHAUSTED and UNAVAILABLE have a
RetryInfo, and INVALID_ARGUMENT has a BadRequest if the error is about one field.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from grpc_status import rpc_status

from spincycle_grpc.errors import SpinCycleError, Status
from spincycle_grpc.rpc_errors import REQUEST_ID_KEY

DOMAIN = "spincycle.dev"
"""The domain of every ErrorInfo."""

RETRY_DELAY = 1
"""Seconds after which a call may be repeated, as in the header Retry-After."""

_LATER = frozenset({Status.RESOURCE_EXHAUSTED, Status.UNAVAILABLE})


def _packed(message: Message) -> Any:
    detail = Any()
    detail.Pack(message)
    return detail


_RETRY_INFO = _packed(RetryInfo(retry_delay=Duration(seconds=RETRY_DELAY)))


async def abort(context: grpc.aio.ServicerContext[object, object], error: SpinCycleError) -> NoReturn:
    """Ends a call with an error.

    Raises:
        CancelledError: The call has ended before, for example because its message was compressed. gRPC would
            log a traceback, and everybody could fill the log with them.
    """
    _drop_tracebacks(error)
    try:
        await context.abort_with_status(status_of(error))
    except grpc.aio.InternalError as ended:
        raise asyncio.CancelledError from ended
    raise AssertionError("a call goes on after its end")


def _drop_tracebacks(error: BaseException | None) -> None:
    """Lets go of the frames that raised an error, and so of their requests, which may have 64 MiB each.

    gRPC keeps its own exception in the state of the call, whose frames refer to the call, so all of it stays
    until the collector looks for cycles.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def status_of(error: SpinCycleError) -> grpc.Status:
    """Returns the status that carries all of an error."""
    metadata = {REQUEST_ID_KEY: error.request_id} if error.request_id else {}
    details = [_packed(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))]
    if error.status in _LATER:
        details.append(_RETRY_INFO)
    if error.status is Status.INVALID_ARGUMENT and error.field:
        violation = BadRequest.FieldViolation(field=error.field, description=error.message)
        details.append(_packed(BadRequest(field_violations=[violation])))
    status: grpc.Status = rpc_status.to_status(
        RpcStatus(code=error.status.grpc_code, message=error.message, details=details)
    )
    return status
