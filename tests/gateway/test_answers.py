"""Answers to errors: the status and the headers that belong to it."""

from __future__ import annotations

import json

import pytest

from spincycle_grpc.errors import (
    ERROR_CLASSES,
    PermissionDeniedError,
    SpinCycleError,
    Status,
    UnauthenticatedError,
)
from spincycle_grpc.v1 import json_pb2, request_manager_pb2
from spincycle_server.gateway import ErrorFormat
from spincycle_server.gateway.answers import error_answer

CHALLENGE = 'Bearer realm="spincycle"'
ORIGINAL_ROUTES = {
    "Create", "Find", "Get", "Start", "Stop", "GetJobChain", "GetLog", "GetJobLog",
    "RequestList", "Running", "Version",
}  # fmt: skip
"""The methods of RequestManager whose routes the original has."""


def headers_of(error: SpinCycleError, denied_status: int) -> tuple[int, dict[str, str]]:
    status, headers, _ = error_answer(error, ErrorFormat.FULL, denied_status)
    return status, {name.decode(): value.decode() for name, value in headers}


@pytest.mark.parametrize("denied_status", [401, 403])
def test_a_caller_without_credentials_gets_401_and_a_challenge(denied_status: int) -> None:
    status, headers = headers_of(UnauthenticatedError("send a token"), denied_status)
    assert (status, headers["www-authenticate"]) == (401, CHALLENGE)


def test_a_denied_caller_gets_401_on_a_route_of_the_original() -> None:
    status, headers = headers_of(PermissionDeniedError("no"), 401)
    assert status == 401
    assert headers["www-authenticate"] == f'{CHALLENGE}, error="insufficient_scope"'


def test_a_denied_caller_gets_403_on_a_new_route() -> None:
    status, headers, body = error_answer(PermissionDeniedError("no"), ErrorFormat.FULL, 403)
    assert status == 403
    assert b"www-authenticate" not in dict(headers)
    assert json.loads(body)["httpStatus"] == 403


@pytest.mark.parametrize("status", Status)
def test_no_cache_keeps_an_error(status: Status) -> None:
    _, headers = headers_of(ERROR_CLASSES[status]("no"), 403)
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("status", [it for it in Status if it.http_status != 401])
def test_other_errors_have_no_challenge(status: Status) -> None:
    found, headers = headers_of(ERROR_CLASSES[status]("no"), 403)
    assert found == status.http_status
    assert "www-authenticate" not in headers


def test_each_new_route_of_the_request_manager_denies_with_403() -> None:
    service = request_manager_pb2.DESCRIPTOR.services_by_name["RequestManager"]
    denied = {
        method.name: method.GetOptions().Extensions[json_pb2.http_answer].denied_status
        for method in service.methods
    }
    assert {name for name, status in denied.items() if status == 403} == set(denied) - ORIGINAL_ROUTES
    assert {status for name, status in denied.items() if name in ORIGINAL_ROUTES} == {0}
