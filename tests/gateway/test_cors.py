"""CORS is off by default. If it is configured, the server sends the headers that browsers need."""

from __future__ import annotations

import pytest

from tests.gateway.wire import JSON, Connection, request

OURS = "https://ops.example.com"
WANTED = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: ")
HEADERS = "authorization, content-type, idempotency-key, traceparent, x-request-id"


def test_without_configuration_there_are_no_cors_headers(manager: str) -> None:
    with Connection(manager) as connection:
        connection.send(request("GET", "/version", f"Origin: {OURS}"))
        answer = connection.answer()
        assert answer.status == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "vary" not in answer.headers
        connection.send(request("OPTIONS", "/api/v1/requests", f"Origin: {OURS}", WANTED[0]))
        answer = connection.answer()
        assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_preflight_request_is_answered(cors_manager: tuple[str, str]) -> None:
    address, origins = cors_manager
    with Connection(address) as connection:
        connection.send(
            request("OPTIONS", "/api/v1/requests", f"Origin: {OURS}", WANTED[0], WANTED[1] + HEADERS)
        )
        answer = connection.answer()
    assert answer.status in (200, 204)
    assert answer.headers["access-control-allow-origin"] == origins
    assert {"GET", "HEAD", "POST", "PUT"} == set(answer.headers["access-control-allow-methods"].split(", "))
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert set(HEADERS.split(", ")) <= set(allowed.split(", "))
    assert int(answer.headers["access-control-max-age"]) > 0
    assert "Origin" in answer.headers["vary"]
    assert answer.headers["x-spincycle-version"]


@pytest.mark.parametrize(
    "headers",
    [
        [f"Origin: {OURS}", "Access-Control-Request-Method: DELETE"],
        [f"Origin: {OURS}", WANTED[0], WANTED[1] + "x-other"],
    ],
)
def test_a_preflight_request_for_other_methods_or_headers_gets_400(
    cors_manager: tuple[str, str], headers: list[str]
) -> None:
    with Connection(cors_manager[0]) as connection:
        connection.send(request("OPTIONS", "/api/v1/requests", *headers))
        assert connection.answer().status == 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("GET", "/version", f"Origin: {OURS}"), 200),
        (request("GET", "/nosuch", f"Origin: {OURS}"), 404),
        (request("POST", "/api/v1/requests", JSON, f"Origin: {OURS}", body=b"{}"), 400),
        (request("POST", "/api/v1/requests", f"Origin: {OURS}", body=b"{}"), 415),
    ],
)
def test_a_page_may_read_answers_and_errors(cors_manager: tuple[str, str], data: bytes, status: int) -> None:
    address, origins = cors_manager
    with Connection(address) as connection:
        connection.send(data)
        answer = connection.answer()
    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] == origins
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    assert exposed == {
        "Location",
        "Retry-After",
        "WWW-Authenticate",
        "X-Spincycle-Next-Page-Token",
        "X-Spincycle-Reason",
        "X-Spincycle-Version",
    }


def test_pages_of_other_origins_may_not_read_answers(cors_manager: tuple[str, str]) -> None:
    address, origins = cors_manager
    with Connection(address) as connection:
        for headers in (["Origin: https://evil.example.com"], ["Origin: null"], []):
            connection.send(request("GET", "/version", *headers))
            answer = connection.answer()
            assert answer.status == 200
            if origins != "*":
                assert "access-control-allow-origin" not in answer.headers
                assert (
                    answer.headers["vary"] == "Origin"
                )  # so that a cache does not give the answer to allowed pages
        connection.send(request("OPTIONS", "/api/v1/requests", "Origin: https://evil.example.com", WANTED[0]))
        answer = connection.answer()
        if origins != "*":
            assert answer.status == 400
            assert "access-control-allow-origin" not in answer.headers


def test_vary_names_all_headers_on_which_an_answer_depends(cors_manager: tuple[str, str]) -> None:
    with Connection(cors_manager[0]) as connection:
        connection.send(request("GET", "/api/v1/request-list", "Accept-Encoding: gzip"))
        assert connection.answer().headers["vary"] == "Accept-Encoding, Origin"
