"""The connection refuses calls at once, and without reading them, while the limit of calls is reached."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.e2e.processes import ServerProcess, running
from tests.gateway.wire import JSON, Answer, Connection, request
from tests.limits import ANSWER, LOG_LINE

CREATE = request("POST", "/api/v1/requests", JSON, body=b'{"type":"one-job","args":{"out":"x"}}')
LIST = request("GET", "/api/v1/requests?limit=1")
MESSAGE = "the limit of 1 concurrent calls is reached: try again later"


@dataclass
class FullManager:
    """A Request Manager with a limit of one call, which is in flight.

    Attributes:
        server: Its process.
        address: Where it serves HTTP.
        database: It is locked, so that the call stays in flight.
        in_flight: The connection of that call.
    """

    server: ServerProcess
    address: str
    database: sqlite3.Connection
    in_flight: Connection

    def let_go(self) -> int:
        """Lets the call in flight end. Returns its status."""
        self.database.rollback()
        return self.in_flight.answer().status


@pytest.fixture(scope="module")
def shared_manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    """A Request Manager with a limit of one call, and the folder of its database."""
    directory = tmp_path_factory.mktemp("manager")
    with manager_of_one_call(directory) as server:
        yield server, directory


@pytest.fixture
def full(shared_manager: tuple[ServerProcess, Path]) -> Iterator[FullManager]:
    """A Request Manager that other tests of the module use too, one after the other."""
    with filled(*shared_manager) as full:
        yield full


@pytest.fixture
def fresh_full(tmp_path: Path) -> Iterator[FullManager]:
    """A Request Manager of one test, which looks at its requests, its log, its memory or its connections."""
    with manager_of_one_call(tmp_path) as server, filled(server, tmp_path) as full:
        yield full


def manager_of_one_call(directory: Path) -> contextlib.AbstractContextManager[ServerProcess]:
    return running(
        "request-manager",
        "--http=127.0.0.1:0",
        directory=directory,
        environment={
            "SPINCYCLE_SERVER_MAX_REQUESTS": "1",
            "SPINCYCLE_SERVER_READ_TIMEOUT": "3s",
            "SPINCYCLE_SERVER_IDLE_TIMEOUT": "3s",
            "SPINCYCLE_SERVER_MAX_CONNECTIONS": "30",
            "SPINCYCLE_DATABASE_TIMEOUT": "60s",
        },
    )


@contextlib.contextmanager
def filled(server: ServerProcess, directory: Path) -> Iterator[FullManager]:
    """Brings a Request Manager to its limit. At the end, no call is in flight."""
    address = server.address("request-manager", "http")
    with (
        contextlib.closing(sqlite3.connect(directory / "spincycle.db", isolation_level=None)) as database,
        Connection(address) as in_flight,
    ):
        database.execute("BEGIN IMMEDIATE")
        in_flight.send(CREATE)
        with Connection(address) as probe:
            while True:  # The call reaches the gate soon. From then on, all others are refused.
                probe.send(LIST)
                if probe.answer().status == 429:
                    break
                if select.select([in_flight.socket], [], [], 0)[0]:  # It was refused in favour of the probe.
                    assert in_flight.answer().status == 429
                    in_flight.send(CREATE)
        full = FullManager(server, address, database, in_flight)
        yield full
        if database.in_transaction:
            full.let_go()


def without_date(answer: Answer) -> Answer:
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    return Answer(answer.status, headers, answer.body)


def test_the_connection_and_the_app_refuse_with_the_same_answer(full: FullManager) -> None:
    with Connection(full.address) as connection:
        connection.send(LIST)
        early = connection.answer()
        connection.send(request("GET", "/api/v1/requests?limit=1", "Origin: https://ops.example.com"))
        by_app = connection.answer()
    assert early.status == 429
    assert without_date(early) == without_date(by_app)
    assert set(early.headers) >= {"date", "x-spincycle-version"}
    assert early.headers["retry-after"] == "1"
    assert json.loads(early.body) == {"message": MESSAGE, "requestId": "", "httpStatus": 429}


def test_the_connection_stays_open_and_later_calls_are_admitted(full: FullManager) -> None:
    with Connection(full.address) as connection:
        connection.send(LIST + CREATE + LIST)
        assert [connection.answer().status for _ in range(3)] == [429] * 3
        assert full.let_go() == 201
        connection.send(LIST)
        answer = connection.answer()
        assert (answer.status, len(json.loads(answer.body))) == (200, 1)
        connection.send(CREATE)
        assert connection.answer().status == 201


def test_a_refused_body_must_arrive_in_time(full: FullManager) -> None:
    with Connection(full.address) as connection:
        connection.send(CREATE[:-5])
        connection.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.answer()
        connection.socket.settimeout(ANSWER)
        connection.send(CREATE[-5:])
        assert connection.answer().status == 429
        connection.send(CREATE[:-5])
        assert connection.answer().status == 408
        assert connection.is_ended()


@pytest.mark.parametrize(
    ("data", "status", "method", "ends"),
    [
        (request("HEAD", "/api/v1/requests"), 429, "HEAD", False),
        (request("OPTIONS", "/api/v1/requests"), 204, "OPTIONS", False),
        (request("DELETE", "/api/v1/requests"), 405, "DELETE", False),
        (request("BREW", "/api/v1/requests"), 405, "BREW", False),
        (request("GET", "/api/v1/requests", "Connection: close"), 429, "GET", True),
        (b"GET /api/v1/requests HTTP/1.0\r\n\r\n", 429, "GET", True),
        (request("PUT", "/api/v1/requests/x/start", body=b"{}"), 429, "PUT", False),
    ],
)
def test_requests_that_the_connection_cannot_refuse_are_answered_by_the_app(
    full: FullManager, data: bytes, status: int, method: str, ends: bool
) -> None:
    with Connection(full.address) as connection:
        connection.send(data)
        answer = connection.answer(method)
        assert answer.status == status
        assert (answer.headers.get("connection") == "close") is ends
        if ends:
            assert connection.is_ended()
            return
        connection.send(LIST)
        assert connection.answer().status == 429


def test_a_client_that_expects_100_continue_is_refused_before_it_sends_its_body(full: FullManager) -> None:
    with Connection(full.address) as connection:
        head = request("POST", "/api/v1/requests", JSON, "Expect: 100-continue", "Content-Length: 17")
        connection.send(head)
        assert connection.answer().status == 429


def test_refusals_that_a_client_does_not_read_do_not_fill_memory(fresh_full: FullManager) -> None:
    process = psutil.Process(fresh_full.server.process.pid)
    before = process.memory_info().rss
    crowd = LIST * 20_000
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = fresh_full.address.rpartition(":")
        client.connect((host, int(port)))
        client.settimeout(2)
        sent = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(40):
                client.sendall(crowd)
                sent += len(crowd)
        grown = process.memory_info().rss - before
    assert sent < 40 * len(crowd), "the server still reads although the client does not read its answers"
    assert grown < 40e6
    assert fresh_full.let_go() == 201


def test_refused_requests_are_not_validated(full: FullManager) -> None:
    with Connection(full.address) as connection:
        for body in (b"{bad", b""):
            connection.send(request("POST", "/api/v1/requests", "Content-Type: text/plain", body=body))
            assert connection.answer().status == 429
        connection.send(request("GET", "/nosuch"))
        assert connection.answer().status == 429


def test_each_refusal_is_counted_once_in_the_log(fresh_full: FullManager) -> None:
    with Connection(fresh_full.address) as connection:
        for method, status in (("GET", 429), ("HEAD", 429), ("OPTIONS", 204), ("DELETE", 405)):
            connection.send(request(method, "/api/v1/requests"))
            assert connection.answer(method).status == status
        connection.send(request("GET", "/api/v1/requests", "Origin: https://ops.example.com"))
        assert connection.answer().status == 429
    in_all = 1 + 3  # the first one of the fixture, GET twice, and HEAD
    deadline = time.monotonic() + LOG_LINE
    while (counted := refusals_in_log(fresh_full)) < in_all and time.monotonic() < deadline:
        time.sleep(0.05)
    assert counted == in_all


def refusals_in_log(full: FullManager) -> int:
    told = [event["calls"] for event in full.server.events if event["message"] == "calls refused"]
    return sum(calls["TOO_MANY_CALLS"] for calls in told)


def test_a_refusal_before_an_unknown_method_is_not_repeated(fresh_full: FullManager) -> None:
    with Connection(fresh_full.address) as connection:
        connection.send(CREATE + request("BREW", "/pot"))
        assert connection.answer().status == 429
        assert connection.answer().status == 400
        assert connection.is_ended()
    assert fresh_full.let_go() == 201
    with Connection(fresh_full.address) as connection:
        connection.send(request("GET", "/api/v1/requests"))
        assert len(json.loads(connection.answer().body)) == 1


def test_calls_of_other_servers_are_admitted(full: FullManager) -> None:
    progress = b'{"requestId":"nosuch","finishedJobs":1}'
    with Connection(full.address) as connection:
        # It comes in one packet with a refused call. The idle timeout must not end the connection meanwhile.
        connection.send(LIST + request("PUT", "/api/v1/requests/nosuch/progress", JSON, body=progress))
        assert connection.answer().status == 429
        time.sleep(4)
        assert full.let_go() == 201
        assert connection.answer().status == 404


def test_the_openapi_document_is_not_refused(full: FullManager) -> None:
    with Connection(full.address) as connection:
        connection.send(request("GET", "/openapi.json"))
        assert connection.answer().status == 200


def test_the_limit_of_connections_still_applies(fresh_full: FullManager) -> None:
    with contextlib.ExitStack() as stack:
        answers = []
        for _ in range(40):
            connection = stack.enter_context(Connection(fresh_full.address))
            connection.send(LIST)
            answers.append(connection.answer())
        assert {answer.status for answer in answers} == {429, 503}
        assert answers[-1].status == 503
        assert answers[-1].headers["connection"] == "close"


def test_each_of_many_concurrent_requests_is_refused_or_answered(full: FullManager) -> None:
    statuses: list[int] = []

    def client() -> None:
        with Connection(full.address) as connection:
            for _ in range(50):
                connection.send(LIST)
                statuses.append(connection.answer().status)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert full.let_go() == 201
    for thread in threads:
        thread.join()
    assert len(statuses) == 400
    assert set(statuses) <= {200, 429}
