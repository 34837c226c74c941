"""The format of errors: the original's Request Manager and Job Runner send different ones."""

from __future__ import annotations

import json

import pytest

from spincycle_grpc.errors import (
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    SpinCycleError,
    UnauthenticatedError,
)
from spincycle_server.gateway import ErrorFormat
from spincycle_server.gateway.errors import formatted_error_body

ERRORS = [
    NotFoundError("no such request", request_id="abc"),
    InternalError("broken"),
    InvalidArgumentError("Type is empty", reason="NO_TYPE"),
    InvalidArgumentError("EOF", reason="BAD_JSON"),
    InvalidArgumentError("bad escape", reason="BAD_PATH"),
    InvalidArgumentError("expected string", reason="WRONG_TYPE"),
    UnauthenticatedError("send a token"),
    PermissionDeniedError("not allowed"),
]


@pytest.mark.parametrize("error", ERRORS[:3], ids=lambda error: error.reason)
def test_a_full_error_has_message_request_id_and_status(error: SpinCycleError) -> None:
    assert json.loads(formatted_error_body(error, ErrorFormat.FULL, error.status.http_status)) == {
        "message": error.message,
        "requestId": error.request_id,
        "httpStatus": error.status.http_status,
    }


@pytest.mark.parametrize("error", ERRORS[3:], ids=lambda error: error.reason)
def test_errors_of_the_originals_framework_are_never_full(error: SpinCycleError) -> None:
    assert json.loads(formatted_error_body(error, ErrorFormat.FULL, error.status.http_status)) == {
        "message": error.message
    }


def test_a_denial_with_a_status_of_its_own_is_full() -> None:
    denied = PermissionDeniedError("not allowed", request_id="abc")
    assert json.loads(formatted_error_body(denied, ErrorFormat.FULL, 403)) == {
        "message": "not allowed",
        "requestId": "abc",
        "httpStatus": 403,
    }


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason)
def test_a_message_error_has_the_message_alone(error: SpinCycleError) -> None:
    assert json.loads(formatted_error_body(error, ErrorFormat.MESSAGE, 404)) == {"message": error.message}
