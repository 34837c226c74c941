"""Ambiguous heads get 400, and silent TLS connections are closed."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator

import pytest
import trustme

from tests.e2e.processes import running
from tests.gateway.wire import JSON, Connection, request
from tests.limits import ANSWER

HOST = "exactly one Host header"
NO_HOST = "is not a host"
CODING = "the only Transfer-Encoding may be chunked"
CHUNKED_BODY = b"2\r\n{}\r\n0\r\n\r\n"


def head(first_line: str, *headers: str) -> bytes:
    return "\r\n".join([first_line, *headers, "", ""]).encode()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (head("GET /version HTTP/1.1"), HOST),
        (head("GET /version HTTP/1.1", "Host: a", "Host: a"), HOST),
        (head("GET /version HTTP/1.0", "Host: a", "Host: b"), HOST),
        (head("GET /version HTTP/1.1", "Host: a, b"), NO_HOST),
        (head("GET /version HTTP/1.1", "Host: me@a"), NO_HOST),
        (head("GET http://there/version HTTP/1.1", "X: y"), HOST),
        (
            request("POST", "/api/v1/requests", JSON, "Transfer-Encoding: gzip, chunked") + CHUNKED_BODY,
            CODING,
        ),
        (
            request("POST", "/api/v1/requests", JSON, "Transfer-Encoding: gzip", "Transfer-Encoding: chunked")
            + CHUNKED_BODY,
            CODING,
        ),
        (head("POST /api/v1/requests HTTP/1.0", JSON, "Transfer-Encoding: chunked") + CHUNKED_BODY, CODING),
    ],
)
def test_an_ambiguous_head_gets_400_and_ends_the_connection(manager: str, data: bytes, problem: str) -> None:
    with Connection(manager) as connection:
        connection.send(request("GET", "/version") + data)
        assert connection.answer().status == 200
        answer = connection.answer()
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
        assert problem in json.loads(answer.body)["message"]
        assert connection.is_ended()


@pytest.mark.parametrize(
    "data",
    [
        head("GET /version HTTP/1.0"),
        head("GET /version HTTP/1.1", "Host:"),
        head("GET /version HTTP/1.1", "Host: [::1]:32308"),
        head("GET http://there/version HTTP/1.1", "Host: here"),
    ],
)
def test_other_heads_are_accepted(manager: str, data: bytes) -> None:
    with Connection(manager) as connection:
        connection.send(data)
        assert connection.answer().status == 200


def test_a_chunked_body_is_accepted(manager: str) -> None:
    with Connection(manager) as connection:
        connection.send(
            request("POST", "/api/v1/requests", JSON, "Transfer-Encoding: Chunked") + CHUNKED_BODY
        )
        assert "Type is empty" in json.loads(connection.answer().body)["message"]


@pytest.fixture(scope="module")
def tls_manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Request Manager with TLS and a short timeout for heads."""
    directory = tmp_path_factory.mktemp("manager")
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    environment = {
        "SPINCYCLE_SERVER_TLS_CERT_FILE": str(directory / "cert.pem"),
        "SPINCYCLE_SERVER_TLS_KEY_FILE": str(directory / "key.pem"),
        "SPINCYCLE_SERVER_HEADER_TIMEOUT": "1s",
        "SPINCYCLE_CLUSTER_OPEN": "true",
    }
    with running(
        "request-manager", "--http=127.0.0.1:0", directory=directory, environment=environment
    ) as server:
        yield server.address("request-manager", "http")


@pytest.mark.parametrize("opening", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_tls_connection_that_does_not_complete_its_handshake_is_closed(
    tls_manager: str, opening: bytes
) -> None:
    with Connection(tls_manager) as connection:
        connection.send(opening)
        assert is_over(connection.socket)


@pytest.mark.parametrize("opening", [b"", b"GET /version HT"])
def test_a_tls_connection_without_a_request_is_closed(tls_manager: str, opening: bytes) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with Connection(tls_manager) as connection:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.send(outgoing.read())
                incoming.write(connection.socket.recv(65536))
        tls.write(opening) if opening else None
        connection.send(outgoing.read())
        # The client does not answer the end of TLS, as a client that is silent on purpose.
        assert is_over(connection.socket)


def is_over(opened: socket.socket) -> bool:
    """Waits for the end of a connection, which may be a reset."""
    opened.settimeout(ANSWER)
    try:
        while opened.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True
