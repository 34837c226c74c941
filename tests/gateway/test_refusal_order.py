"""Refusals come in one order, and the body of a stranger is not read."""

from __future__ import annotations

import contextlib
import select
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.processes import running
from tests.gateway.wire import JSON, Connection, request

MAX_BODY = 100_000
TOKEN = "Authorization: Bearer right"
PLUGIN = """
from spincycle_grpc import Caller, UnauthenticatedError

class Tokens:
    async def authenticate(self, metadata, peer):
        if metadata.get("authorization") != "Bearer right":
            raise UnauthenticatedError("unknown token", reason="UNKNOWN_TOKEN")
        return Caller("finch")
"""
PATH = "/api/v1/requests"
PLAIN = "Content-Type: text/plain"
LONG = f"Content-Length: {MAX_BODY + 1}"
SHORT = "Content-Length: 1000"


@dataclass
class Manager:
    """A Request Manager with a limit of one call.

    Attributes:
        address: Where it serves HTTP.
        database: The path of its database.
    """

    address: str
    database: Path

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Keeps one call in flight, because the database is locked."""
        with sqlite3.connect(self.database) as database, Connection(self.address) as in_flight:
            database.execute("BEGIN EXCLUSIVE")
            create = request("POST", PATH, JSON, TOKEN, body=b'{"type":"one-job","args":{"out":"x"}}')
            in_flight.send(create)
            with Connection(self.address) as probe:
                while True:  # The call reaches the gate soon. From then on, all others are refused.
                    probe.send(request("GET", "/version"))
                    if probe.answer().status == 429:
                        break
                    if select.select([in_flight.socket], [], [], 0)[0]:  # It met a probe in the gate.
                        assert in_flight.answer().status == 429
                        in_flight.send(create)
            yield
            database.rollback()
            assert in_flight.answer().status == 201


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    directory = tmp_path_factory.mktemp("manager")
    (directory / "our_tokens.py").write_text(PLUGIN)
    (directory / "config.yaml").write_text("auth: {plugin: 'our_tokens:Tokens'}\ncluster: {open: true}\n")
    environment = {
        "SPINCYCLE_SERVER_MAX_BODY": str(MAX_BODY),
        "SPINCYCLE_SERVER_MAX_REQUESTS": "1",
        "SPINCYCLE_DATABASE_TIMEOUT": "60s",
    }
    with running(
        "request-manager", "config.yaml", "--http=127.0.0.1:0", directory=directory, environment=environment
    ) as server:
        yield Manager(server.address("request-manager", "http"), directory / "spincycle.db")


def status_of(manager: Manager, head: bytes) -> int:
    """Returns the status of a request whose body does not come."""
    with Connection(manager.address) as connection:
        connection.send(head)
        return connection.answer().status


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (request("POST", "/nosuch", PLAIN, LONG), 404),
        (request("DELETE", PATH, PLAIN, LONG), 405),
        (request("POST", PATH, PLAIN, LONG), 401),
        (request("POST", PATH, PLAIN, SHORT), 401),
        (request("POST", PATH, JSON, LONG), 401),
        (request("POST", PATH, JSON, SHORT), 401),
        (request("POST", PATH, JSON, SHORT, "Expect: 100-continue"), 401),
        (request("POST", PATH, JSON, SHORT, "Content-Encoding: br"), 401),
        (request("POST", PATH, JSON, "Transfer-Encoding: chunked"), 401),
        (request("POST", PATH, JSON, "Authorization: Bearer wrong", LONG), 401),
        (request("POST", PATH, JSON, TOKEN, TOKEN, LONG), 401),
        (request("POST", PATH, PLAIN, TOKEN, LONG), 415),
        (request("POST", PATH, JSON, TOKEN, LONG), 413),
        (request("POST", PATH, JSON, TOKEN, body=b"{bad"), 400),
    ],
)
def test_the_first_reason_in_the_order_is_the_answer(manager: Manager, head: bytes, status: int) -> None:
    assert status_of(manager, head) == status


def test_credentials_in_a_trailer_do_not_count(manager: Manager) -> None:
    head = request("POST", PATH, JSON, "Transfer-Encoding: chunked")
    trailer = f"{TOKEN}\r\n\r\n".encode()
    assert status_of(manager, head + b"2\r\n{}\r\n0\r\n" + trailer) == 401


def test_a_full_server_refuses_strangers_with_429(manager: Manager) -> None:
    with manager.full():
        for headers in ((PLAIN,), (JSON, TOKEN)):
            assert status_of(manager, request("POST", PATH, *headers, body=b"{bad")) == 429
        assert status_of(manager, request("GET", f"{PATH}/unknown")) == 429
        assert status_of(manager, request("GET", f"{PATH}/unknown", TOKEN)) == 429
    assert status_of(manager, request("GET", f"{PATH}/unknown")) == 401
