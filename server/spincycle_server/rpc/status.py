"""Errors as gRPC statuses. A google.rpc.ErrorInfo detail carries the reason and the request id."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status as RpcStatus
from grpc_status import rpc_status

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.rpc_errors import REQUEST_ID_KEY

DOMAIN = "spincycle"
"""The domain of every ErrorInfo."""


def status_of(error: SpinCycleError) -> grpc.Status:
    """Returns the status that carries all of an error."""
    detail = Any()
    metadata = {REQUEST_ID_KEY: error.request_id} if error.request_id else {}
    detail.Pack(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    status: grpc.Status = rpc_status.to_status(
        RpcStatus(code=error.status.grpc_code, message=error.message, details=[detail])
    )
    return status
