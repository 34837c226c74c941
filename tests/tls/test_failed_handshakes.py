"""The log of HTTP servers about clients that cannot connect."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
import trustme

from spincycle_server.tls.failed_handshakes import LOG_INTERVAL, FailedHandshakes
from tests.certificates import Files, write_ca, write_certificate
from tests.e2e.processes import ServerProcess, running
from tests.limits import ANSWER

AUTHORITY = trustme.CA()


@contextlib.contextmanager
def connected(server: ServerProcess) -> Iterator[socket.socket]:
    host, _, port = server.address("request-manager", "http").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=ANSWER) as connection:
        yield connection


def trusting(*authorities: trustme.CA, user: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for authority in authorities:
        authority.configure_trust(context)
    if user is not None:
        user.issue_cert("a@example.com").configure_cert(context)
    return context


def connect(server: ServerProcess, context: ssl.SSLContext) -> None:
    """Opens a TLS connection and uses it, until one side refuses."""
    with (
        contextlib.suppress(OSError),
        connected(server) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n")
        secured.recv(100)


def send(server: ServerProcess, data: bytes) -> None:
    with contextlib.suppress(OSError), connected(server) as connection:
        connection.sendall(data)
        connection.recv(100)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    directory = tmp_path_factory.mktemp("files")
    write_ca(directory, AUTHORITY)
    return write_certificate(directory, "own", AUTHORITY.issue_cert("127.0.0.1"))


@pytest.fixture(scope="module")
def with_tls(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    environment = {
        "SPINCYCLE_SERVER_TLS_CERT_FILE": files.cert,
        "SPINCYCLE_SERVER_TLS_KEY_FILE": files.key,
        "SPINCYCLE_SERVER_TLS_CA_FILE": str(Path(files.cert).with_name("ca.pem")),
        "SPINCYCLE_SERVER_TLS_CLIENT_AUTH": "require",
    }
    directory = tmp_path_factory.mktemp("server")
    with running("server", "--http=127.0.0.1:0", directory=directory, environment=environment) as server:
        yield server


FAULTS: dict[str, tuple[Callable[[ServerProcess], None], str]] = {
    "plain HTTP": (
        lambda server: send(server, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"),
        "clients sent plain HTTP, but this address uses TLS: they must use https",
    ),
    "other bytes": (
        lambda server: send(server, b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b"),
        "clients did not send TLS, but this address uses TLS",
    ),
    "no certificate": (
        lambda server: connect(server, trusting(AUTHORITY)),
        "clients sent no certificate, but server.tls.client_auth is require",
    ),
    "certificate of another CA": (
        lambda server: connect(server, trusting(AUTHORITY, user=trustme.CA())),
        "client certificates were refused: unable to get local issuer certificate",
    ),
    "client that trusts another CA": (
        lambda server: connect(server, trusting(trustme.CA())),
        "clients do not trust the CA of this server's certificate",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_logs_why_a_client_could_not_connect(fault: str, with_tls: ServerProcess) -> None:
    fail, message = FAULTS[fault]
    fail(with_tls)
    with_tls.wait_for("clients could not connect", fault=message)


def test_a_server_without_tls_logs_that_a_client_used_it(tmp_path: Path) -> None:
    with running("server", "--http=127.0.0.1:0", directory=tmp_path) as server:
        connect(server, trusting(AUTHORITY))
        event = server.wait_for("clients could not connect")
        assert "this address is plain HTTP" in event["fault"]


def test_a_fault_is_logged_once_in_an_interval_with_the_number_of_clients() -> None:
    time = 0.0
    failed = FailedHandshakes(lambda: time)
    with structlog.testing.capture_logs() as log:
        for _ in range(3):
            failed.add("a")
        failed.add("b")
        time = LOG_INTERVAL
        failed.add("a")
    assert [(entry["fault"], entry["clients"]) for entry in log] == [("a", 1), ("b", 1), ("a", 3)]


def test_clients_that_go_away_do_not_count() -> None:
    with structlog.testing.capture_logs() as log:
        FailedHandshakes().add_error(ssl.SSLError(8, "EOF occurred"))
    assert not log
