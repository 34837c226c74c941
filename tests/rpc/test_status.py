"""Errors become gRPC statuses that carry all of an error."""

from __future__ import annotations

from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus

from spincycle_grpc.errors import (
    ERROR_CLASSES,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    SpinCycleError,
    UnavailableError,
)
from spincycle_server.rpc.status import abort, status_of

_Detail = TypeVar("_Detail", bound=Message)


def details(status: grpc.Status) -> RpcStatus:
    (packed,) = [value for key, value in status.trailing_metadata or () if key == "grpc-status-details-bin"]
    assert isinstance(packed, bytes)
    return RpcStatus.FromString(packed)


def detail(status: grpc.Status, kind: type[_Detail]) -> _Detail | None:
    """Returns the detail of a kind; None if the status has none."""
    found = kind()
    unpacked = [packed.Unpack(found) for packed in details(status).details]
    assert unpacked.count(True) <= 1
    return found if any(unpacked) else None


def error_info(status: grpc.Status) -> ErrorInfo:
    info = detail(status, ErrorInfo)
    assert info is not None
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
    assert (info.reason, info.domain) == ("POT_EMPTY", "spincycle.dev")
    assert dict(info.metadata) == {"requestId": "abc"}


def test_an_error_that_is_not_about_a_request_has_no_request_id() -> None:
    assert not error_info(status_of(NotFoundError("no such thing"))).metadata


@pytest.mark.parametrize("error_class", ERROR_CLASSES.values())
def test_errors_that_pass_say_when_to_try_again(error_class: type[SpinCycleError]) -> None:
    retry = detail(status_of(error_class("no")), RetryInfo)
    assert (retry is not None) == (error_class in (ResourceExhaustedError, UnavailableError))
    assert retry is None or retry.retry_delay.ToSeconds() == 1


def test_an_invalid_field_is_named() -> None:
    status = status_of(InvalidArgumentError("args.host: too long", field="args.host"))
    bad_request = detail(status, BadRequest)
    assert bad_request is not None
    (violation,) = bad_request.field_violations
    assert (violation.field, violation.description) == ("args.host", "args.host: too long")
    assert detail(status_of(InvalidArgumentError("no")), BadRequest) is None


def test_messages_may_contain_any_text() -> None:
    message = "caf\xe9 \u2603 \U0001f600\nsecond line"
    status = status_of(NotFoundError(message))
    assert status.details == details(status).message == message


async def test_an_error_that_ends_a_call_keeps_no_frame_of_the_call() -> None:
    class Context:
        async def abort_with_status(self, status: object) -> None:
            raise grpc.aio.AbortError

    def fail() -> None:
        try:
            raise ValueError("the cause")
        except ValueError as cause:
            raise InvalidArgumentError("bad") from cause

    context: Any = Context()
    with pytest.raises(InvalidArgumentError) as caught:
        fail()
    error = caught.value
    with pytest.raises(grpc.aio.AbortError):
        await abort(context, error)
    assert error.__traceback__ is None
    assert error.__cause__ is not None
    assert error.__cause__.__traceback__ is None
