"""HTTP connections: keep-alive, pipelining and closing; clients that are slow, verbose or broken."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import psutil
import pytest

from tests.gateway.conftest import MAX_BODY
from tests.gateway.wire import JSON, Connection, request
from tests.limits import REQUEST_END

VERSION = request("GET", "/version")
NO_TYPE = request("POST", "/api/v1/requests", JSON, body=b"{}")


def test_a_connection_stays_open_after_errors(manager: str) -> None:
    with Connection(manager) as connection:
        for data, status in (
            (VERSION, 200),
            (request("GET", "/nosuch"), 404),
            (NO_TYPE, 400),
            (request("POST", "/api/v1/requests", JSON, body=b"{bad"), 400),
            (request("POST", "/api/v1/requests", "Content-Type: text/plain", body=b"x" * 300_000), 415),
            (request("POST", "/nosuch", body=b"x" * 300_000), 404),
            (request("DELETE", "/api/v1/requests", body=b"x" * 300_000), 405),
            (request("GET", "/api/v1/requests/%zz"), 400),
            (VERSION, 200),
        ):
            connection.send(data)
            answer = connection.answer()
            assert answer.status == status
            assert "connection" not in answer.headers


def test_pipelined_requests_are_answered_in_order(manager: str) -> None:
    with Connection(manager) as connection:
        connection.send(VERSION + NO_TYPE + request("GET", "/nosuch") + request("BREW", "/") + VERSION)
        assert [connection.answer().status for _ in range(3)] == [200, 400, 404]
        # The parser does not know the method BREW, so it cannot tell where the next request begins.
        assert connection.is_ended()


def test_malformed_http_after_a_request_does_not_replace_its_answer(manager: str) -> None:
    with Connection(manager) as connection:
        connection.send(NO_TYPE + b"\0\0\0\0\r\n\r\n")
        answer = connection.answer()
        assert json.loads(answer.body)["message"] == "Type is empty, must be a request name"
        assert connection.is_ended()


@pytest.mark.parametrize("headers", [["Connection: close"], []])
def test_a_connection_ends_after_the_answer_if_the_client_asks_for_it(
    manager: str, headers: list[str]
) -> None:
    with Connection(manager) as connection:
        connection.send(request("GET", "/version", *headers) if headers else b"GET /version HTTP/1.0\r\n\r\n")
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert connection.is_ended()


def test_a_client_that_closes_its_sending_side_gets_its_answer(manager: str) -> None:
    with Connection(manager) as connection:
        connection.send(NO_TYPE)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.answer().status == 400
        assert connection.is_ended()


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_over_the_limit_gets_413_and_the_client_can_read_the_answer(
    manager: str, is_chunked: bool
) -> None:
    body = b" " * (4 * MAX_BODY)
    if is_chunked:
        head = request("POST", "/api/v1/requests", JSON, "Transfer-Encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    else:
        head = request("POST", "/api/v1/requests", JSON, f"Content-Length: {len(body)}")
    with Connection(manager) as connection:
        with contextlib.suppress(BrokenPipeError):  # The server may have closed the connection by now.
            connection.send(head + body)
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert str(MAX_BODY) in json.loads(answer.body)["message"]
        assert connection.is_ended()


def test_a_body_of_exactly_the_limit_is_accepted(manager: str) -> None:
    body = b'{"type":""}'
    with Connection(manager) as connection:
        for length, status in ((MAX_BODY, 400), (MAX_BODY + 1, 413)):
            connection.send(
                request("POST", "/api/v1/requests", JSON, body=body + b" " * (length - len(body)))
            )
            assert connection.answer().status == status


def test_a_client_may_expect_100_continue_before_it_sends_a_body(manager: str) -> None:
    with Connection(manager) as connection:
        asking = request("POST", "/api/v1/requests", JSON, "Expect: 100-continue", "Content-Length: 2")
        connection.send(asking)
        assert connection.answer().status == 100
        connection.send(b"{}")
        assert connection.answer().status == 400
        connection.send(asking.replace(b"Length: 2", b"Length: 99999999"))
        assert connection.answer().status == 413
        assert connection.is_ended()
    with Connection(manager) as connection:
        connection.send(request("POST", "/api/v1/requests", "Expect: 100-continue", "Content-Length: 2"))
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (415, "close")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/json;charset=x",
        " application/json ",
    ],
)
def test_accepted_content_types(manager: str, content_type: str) -> None:
    with Connection(manager) as connection:
        connection.send(request("POST", "/api/v1/requests", f"Content-Type:{content_type}", body=b"{}"))
        assert connection.answer().status == 400


@pytest.mark.parametrize("content_type", ["text/plain", "application/jsonx", "application/x-protobuf", ""])
def test_other_content_types_get_415(manager: str, content_type: str) -> None:
    with Connection(manager) as connection:
        connection.send(request("POST", "/api/v1/requests", f"Content-Type: {content_type}", body=b"{}"))
        answer = connection.answer()
        assert (answer.status, json.loads(answer.body)) == (415, {"message": "Unsupported Media Type"})


@pytest.mark.parametrize("size", [70_000, 5_000_000])
@pytest.mark.parametrize("where", ["path", "one header", "many headers"])
def test_a_head_that_is_too_large_gets_431(manager: str, where: str, size: int) -> None:
    data = {
        "path": request("GET", "/version?" + "x" * size),
        "one header": request("GET", "/version", "X: " + "x" * size),
        "many headers": request("GET", "/version", *[f"X-{number}: y" for number in range(size // 6)]),
    }[where]
    with Connection(manager) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.send(data)
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (431, "close")
        assert connection.is_ended()


def test_a_large_body_does_not_count_towards_the_next_head(manager: str) -> None:
    large = request("POST", "/api/v1/requests", JSON, body=b'{"type":""}' + b" " * 400_000)
    with Connection(manager) as connection:
        connection.send((large + request("GET", "/version", "X: " + "x" * 60_000)) * 3)
        assert [connection.answer().status for _ in range(6)] == [400, 200] * 3


def test_headers_that_are_repeated_or_invalid(manager: str) -> None:
    with Connection(manager) as connection:
        connection.send(request("GET", "/version", "X-Some: 1", "X-Some: 2"))
        assert connection.answer().status == 200
        connection.send(request("POST", "/api/v1/requests", JSON, "Content-Type: text/plain", body=b"{}"))
        assert connection.answer().status == 415
    for headers in (
        ["Content-Length: 2", "Content-Length: 3"],
        ["Content-Length: 2", "Transfer-Encoding: chunked"],
        ["Content-Length: -1"],
        ["Bad Name: x"],
    ):
        with Connection(manager) as connection:
            connection.send(request("POST", "/api/v1/requests", JSON, *headers))
            assert connection.answer().status == 400
            assert connection.is_ended()


def test_an_upgrade_is_ignored_and_the_connection_stays_open(manager: str) -> None:
    upgrade = request("GET", "/version", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")
    with Connection(manager) as connection:
        for _ in range(2):
            connection.send(upgrade + VERSION)
            assert [connection.answer().status for _ in range(2)] == [200, 200]
        connection.send(upgrade * 3000)
        assert {connection.answer().status for _ in range(3000)} == {200}


def test_a_head_that_takes_too_long_gets_408(hasty_manager: str) -> None:
    with Connection(hasty_manager) as connection:
        connection.send(VERSION[:20])
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert connection.is_ended()


def test_a_body_that_takes_too_long_gets_408(hasty_manager: str) -> None:
    with Connection(hasty_manager) as connection:
        connection.send(NO_TYPE[:-1])
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert json.loads(answer.body) == {"message": "Request Timeout"}
        assert connection.is_ended()


def test_idle_connections_are_closed_without_an_answer(hasty_manager: str) -> None:
    with Connection(hasty_manager) as connection:
        assert connection.is_ended()
    with Connection(hasty_manager) as connection:
        connection.send(VERSION)
        assert connection.answer().status == 200
        assert connection.is_ended()


def test_a_client_cannot_send_a_rejected_body_forever(hasty_manager: str) -> None:
    with Connection(hasty_manager) as connection:
        connection.send(request("POST", "/nosuch", "Content-Length: 1000000000", "X: y"))
        assert connection.answer().status == 404
        is_ended = False
        while not is_ended:
            try:
                connection.send(b"x" * 1000)
            except (BrokenPipeError, ConnectionResetError):
                is_ended = True


def test_connections_over_the_limit_get_503(small_manager: str) -> None:
    with contextlib.ExitStack() as stack:
        statuses = []
        for _ in range(6):
            connection = stack.enter_context(Connection(small_manager))
            connection.send(VERSION)
            answer = connection.answer()
            statuses.append(answer.status)
        assert 503 in statuses
        assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
        assert json.loads(answer.body)["message"].startswith("Service Unavailable")


@pytest.mark.parametrize("headers", [[], ["Connection: close"]])
def test_a_client_that_does_not_read_its_answers_is_disconnected(
    impatient_manager: str, headers: list[str]
) -> None:
    create = json.dumps({"type": "one-job", "args": {"out": "x" * 900_000}}).encode()
    with Connection(impatient_manager) as connection:
        connection.send(request("POST", "/api/v1/requests", JSON, body=create))
        path = connection.answer().headers["location"]
    host, _, port = impatient_manager.rpartition(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        client.sendall(request("GET", path) * 10 + request("GET", path, *headers))
        deadline = time.monotonic() + REQUEST_END
        while is_established(int(port), client.getsockname()):
            assert time.monotonic() < deadline, "the server waits forever"
            time.sleep(0.02)


def is_established(port: int, peer: tuple[str, int]) -> bool:
    """Whether a server still has its connection to a peer. A peer that does not read cannot tell."""
    return any(
        one.status == psutil.CONN_ESTABLISHED and one.raddr and tuple(one.raddr) == peer
        for one in psutil.net_connections("tcp")
        if one.laddr and one.laddr.port == port
    )


def test_a_client_that_reads_slowly_gets_its_answers(impatient_manager: str) -> None:
    create = json.dumps({"type": "one-job", "args": {"out": "x" * 900_000}}).encode()
    with Connection(impatient_manager) as connection:
        connection.send(request("POST", "/api/v1/requests", JSON, body=create))
        path = connection.answer().headers["location"]
        connection.send(request("GET", path) * 10)
        for _ in range(10):
            time.sleep(0.3)  # less than the limit each time, but more than the limit in total
            assert len(connection.answer().body) > 900_000
