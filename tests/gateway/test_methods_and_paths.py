"""HEAD, OPTIONS, unknown methods and paths, and the headers of every answer."""

from __future__ import annotations

import json

import pytest

from spincycle_grpc.version import API_VERSION
from tests.gateway.wire import JSON, Connection, request

ALLOWED = "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize(
    "path", ["/version", "/api/v1/request-list", "/api/v1/requests/nosuch", "/nosuch", "/openapi.json"]
)
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_head_has_the_headers_of_get_and_no_body(manager: str, path: str, encoding: str) -> None:
    with Connection(manager) as connection:
        answers = []
        for method in ("GET", "HEAD", "GET"):  # The last GET shows that HEAD left no bytes of a body behind.
            connection.send(request(method, path, f"Accept-Encoding: {encoding}"))
            answers.append(connection.answer(method))
    for answer in answers:
        answer.headers.pop("date")
    got, head, again = answers
    assert got.status == head.status == again.status
    assert got.headers == head.headers == again.headers
    assert head.body == b""
    assert len(got.body) == int(head.headers["content-length"]) > 0


def test_options_lists_the_allowed_methods(manager: str) -> None:
    with Connection(manager) as connection:
        for path, allowed in {
            "/api/v1/requests": ALLOWED,
            "/api/v1/requests/x/stop": "OPTIONS, PUT",
            "/openapi.json": "GET, HEAD, OPTIONS",
            "*": "GET, HEAD, OPTIONS, POST, PUT",
        }.items():
            connection.send(request("OPTIONS", path))
            answer = connection.answer()
            assert (answer.status, answer.headers["allow"], answer.body) == (204, allowed, b"")
            assert "content-length" not in answer.headers  # RFC 9110, 8.6
        connection.send(request("OPTIONS", "/nosuch"))
        assert connection.answer().status == 404


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "PUT", "TRACE", "QUERY", "BREW", "get", "X-Y"])
def test_methods_that_a_path_does_not_have_get_405_with_allow(manager: str, method: str) -> None:
    with Connection(manager) as connection:
        for _ in range(2):
            connection.send(request(method, "/api/v1/requests", JSON, body=b"{}"))
            answer = connection.answer()
            assert (answer.status, answer.headers["allow"]) == (405, ALLOWED)
            assert json.loads(answer.body) == {"message": "Method Not Allowed"}
        connection.send(request(method, "/nosuch"))
        assert connection.answer().status == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 421),  # The page is shown under names of the server alone.
        ("//", 404),
        ("/api", 404),
        ("/api/v1/requests//log", 404),
        ("/api/v1/requests/", 200),
        ("/api/v1/requests/a%2Fb", 404),
        ("/api/v1/requests/%c3%a4", 404),
        ("/api/v1/requests/%zz", 400),
        ("/api/v1/requests/%4", 400),
        ("/api/v1/requests/%", 400),
        ("/api/v1/requests/%ff", 400),
        ("/api/v1/requests/%00", 400),
        ("/api/v1/requests/\xe4", 400),
        ("/api/v1/requests?type=%zz&user=%ff&nosuch=1&&=", 200),
        ("/api/v1/requests?type=%00", 200),
        ("/api/v1/requests?limit=" + "0" * 40 + "9" * 25, 400),
        ("/api/v1/requests?limit=" + "9" * 5000, 400),
        ("/api/v1/requests?" + "&".join(["state=FAIL"] * 2000), 400),
        ("http://elsewhere/api/v1/requests?limit=1", 200),
        ("http://elsewhere/nosuch", 404),
    ],
)
def test_paths_and_queries(manager: str, path: str, status: int) -> None:
    with Connection(manager) as connection:
        connection.send(request("GET", path))
        answer = connection.answer()
        assert answer.status == status, answer.body
        if status >= 400:
            assert json.loads(answer.body)["message"]
        assert answer.headers["content-type"] == "application/json; charset=UTF-8"


def test_an_escaped_slash_is_part_of_the_value(manager: str) -> None:
    with Connection(manager) as connection:
        connection.send(request("GET", "/api/v1/requests/a%2Flog"))
        assert json.loads(connection.answer().body)["requestId"] == "a/log"


@pytest.mark.parametrize(
    "data",
    [
        request("GET", "/version"),
        request("GET", "/nosuch"),
        request("OPTIONS", "/version"),
        request("BREW", "/version"),
        request("POST", "/api/v1/requests", body=b"{}"),
        request("POST", "/api/v1/requests", JSON, body=b"{bad"),
        request("GET", "/version", "X: " + "x" * 100_000),
        request("GET", "/%", "Content-Length: 1", "Content-Length: 2"),
        b"\x16\x03\x01\x02\x00\x01 not HTTP\r\n\r\n",
    ],
)
def test_every_answer_carries_the_version(manager: str, data: bytes) -> None:
    with Connection(manager) as connection:
        connection.send(data)
        answer = connection.answer()
        assert answer.headers["x-spincycle-version"] == API_VERSION
        assert answer.headers["date"]
