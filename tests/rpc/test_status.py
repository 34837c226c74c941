"""Errors become gRPC statuses that carry all of an error."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status as RpcStatus

from spincycle_grpc.errors import ERROR_CLASSES, NotFoundError, SpinCycleError
from spincycle_server.rpc.status import status_of


def details(status: grpc.Status) -> RpcStatus:
    (packed,) = [value for key, value in status.trailing_metadata or () if key == "grpc-status-details-bin"]
    assert isinstance(packed, bytes)
    return RpcStatus.FromString(packed)


def error_info(status: grpc.Status) -> ErrorInfo:
    (detail,) = details(status).details
    info = ErrorInfo()
    assert detail.Unpack(info)
    return info


@pytest.mark.parametrize("error_class", ERROR_CLASSES.values())
def test_a_status_has_the_code_the_message_and_the_reason(error_class: type[SpinCycleError]) -> None:
    error = error_class("the pot is empty: add water", reason="POT_EMPTY", request_id="abc")
    status = status_of(error)
    assert status.code.value[0] == error.status.grpc_code
    assert status.details == "the pot is empty: add water"
    assert details(status).code == error.status.grpc_code
    assert details(status).message == "the pot is empty: add water"
    info = error_info(status)
    assert (info.reason, info.domain) == ("POT_EMPTY", "spincycle")
    assert dict(info.metadata) == {"requestId": "abc"}


def test_an_error_that_is_not_about_a_request_has_no_request_id() -> None:
    assert not error_info(status_of(NotFoundError("no such thing"))).metadata


def test_messages_may_contain_any_text() -> None:
    message = "caf\xe9 \u2603 \U0001f600\nsecond line"
    status = status_of(NotFoundError(message))
    assert status.details == details(status).message == message
