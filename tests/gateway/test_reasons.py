"""Every error over HTTP has its reason in a header, which the list of reasons explains."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import NotFoundError
from spincycle_grpc.v1.errors_pb2 import ErrorReason
from spincycle_server.gateway.errors import reason_header
from tests.gateway.conftest import MAX_BODY
from tests.gateway.wire import JSON, Connection, request

REQUESTS = "/api/v1/requests"


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (request("GET", "/nosuch"), 404, "NO_SUCH_PATH"),
        (request("DELETE", REQUESTS), 405, "METHOD_NOT_ALLOWED"),
        (request("POST", "/openapi.json"), 405, "METHOD_NOT_ALLOWED"),
        (request("POST", REQUESTS, body=b"{}"), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (request("POST", REQUESTS, JSON, body=b"x" * (MAX_BODY + 1)), 413, "BODY_TOO_LARGE"),
        (request("POST", REQUESTS, JSON, "Content-Encoding: gzip", body=b"x"), 400, "BAD_HTTP"),
        (request("POST", REQUESTS, JSON, body=b"{"), 400, "BAD_JSON"),
        (request("POST", REQUESTS, JSON, body=b"{}"), 400, "TYPE_EMPTY"),
        (request("GET", f"{REQUESTS}/nosuch"), 404, "REQUEST_NOT_FOUND"),
        (request("GET", f"{REQUESTS}/%zz"), 400, "BAD_PATH"),
        (request("GET", "/version", "X: " + "x" * 70_000), 431, "HEAD_TOO_LARGE"),
        (b"no HTTP\r\n\r\n", 400, "BAD_HTTP"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_has_its_reason_in_a_header(manager: str, data: bytes, status: int, reason: str) -> None:
    with Connection(manager) as connection:
        connection.send(data)
        answer = connection.answer()
    assert (answer.status, answer.headers["x-spincycle-reason"]) == (status, reason)
    assert f"ERROR_REASON_{reason}" in ErrorReason.DESCRIPTOR.values_by_name


def test_a_success_has_no_reason(manager: str) -> None:
    with Connection(manager) as connection:
        connection.send(request("GET", "/version"))
        assert "x-spincycle-reason" not in connection.answer().headers


@pytest.mark.parametrize("reason", ["bad\r\nX-Injected: 1", "lower", "A" * 101, "\xc4"])
def test_a_reason_of_a_plugin_that_does_not_fit_is_left_out(reason: str) -> None:
    assert reason_header(NotFoundError("no", reason=reason)) == []
