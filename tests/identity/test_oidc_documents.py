"""How documents of an OIDC provider are read: over which URLs, which certificates count, and for how long."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme

from spincycle_server.identity import oidc_documents
from spincycle_server.identity.oidc_documents import DocumentError, is_trustworthy, read_document
from tests.identity.oidc_providers import chosen_provider


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://login.example.com/realms/main", True),
        ("https://login.example.com:8443", True),
        ("http://localhost:8080/x", True),
        ("http://127.0.0.1", True),
        ("http://[::1]:80", True),
        ("http://login.example.com", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("http://127.0.0.1@example.com", False),
        ("https://user:password@login.example.com", False),
        ("https://login.example.com:99999", False),
        ("https://[::1", False),
        ("https://", False),
        ("https://a\nb", False),
        ("file:///etc/passwd", False),
        ("ftp://127.0.0.1/x", False),
        ("login.example.com", False),
        ("", False),
    ],
)
def test_only_https_and_this_machine_are_trustworthy(url: str, expected: bool) -> None:
    assert is_trustworthy(url) is expected


@contextlib.contextmanager
def https_server(ca: trustme.CA, host: str) -> Iterator[str]:
    """Answers every request with an empty object over HTTPS. Yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(host).configure_cert(context)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_the_provider_needs_a_certificate_of_a_trusted_ca_for_its_host(tmp_path: Path) -> None:
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    other.cert_pem.write_to_path(str(tmp_path / "other.pem"))
    with https_server(ca, "127.0.0.1") as url:
        assert read_document(url, str(tmp_path / "ca.pem")) == {}
        for wrong in (str(tmp_path / "other.pem"), ""):
            with pytest.raises(DocumentError, match="CERTIFICATE_VERIFY_FAILED"):
                read_document(url, wrong)
        with pytest.raises(DocumentError, match="No such file"):
            read_document(url, str(tmp_path / "none.pem"))
    with (
        https_server(ca, "another.example") as url,
        pytest.raises(DocumentError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        read_document(url, str(tmp_path / "ca.pem"))


def test_a_proxy_is_not_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with chosen_provider() as provider:
        assert "keys" in read_document(f"{provider.issuer}/jwks", "")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe",
    ],
)
def test_an_answer_that_is_not_http_or_json_is_an_error(answer: bytes) -> None:
    with answering(answer, closes=True) as url, pytest.raises(DocumentError):
        read_document(url, "")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_a_silent_provider_is_given_up(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc_documents, "TIMEOUT", 0.2)
    with answering(answer, closes=False) as url, pytest.raises(DocumentError, match="timed out"):
        read_document(url, "")


@contextlib.contextmanager
def answering(answer: bytes, *, closes: bool) -> Iterator[str]:
    """Answers one connection with these bytes, and then closes it or stays silent. Yields the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)
                if not closes:
                    connection.recv(1)  # until the client gives up

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            thread.join()
