"""Clients say what is wrong with TLS: with real servers that have each fault."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import grpc
import pytest
import trustme

from spincycle_grpc import AsyncClient, Client, UnavailableError
from spincycle_grpc.tls_errors import ClientTls, Speaks, closed_while_connecting, probe, tls_error
from tests.certificates import FUTURE, PAST
from tests.fake_manager import FakeManager, serving

CA = trustme.CA()
OTHER = trustme.CA()
DAY = datetime.timedelta(days=1)


def server_credentials(leaf: trustme.LeafCert, *, require: bool = False) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes())],
        CA.cert_pem.bytes() if require else None,
        require_client_auth=require,
    )


def client_credentials(
    authority: trustme.CA = CA, certificate: trustme.LeafCert | None = None, key: bytes | None = None
) -> grpc.ChannelCredentials:
    if certificate is None:
        return grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    own_key = key or certificate.private_key_pem.bytes()
    return grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(), own_key, certificate.cert_chain_pems[0].bytes()
    )


SERVERS = {
    "plain text": None,
    "TLS": server_credentials(CA.issue_cert("127.0.0.1")),
    "client certificates": server_credentials(CA.issue_cert("127.0.0.1"), require=True),
    "another host": server_credentials(CA.issue_cert("other.example.com")),
    "expired": server_credentials(CA.issue_cert("127.0.0.1", not_before=PAST, not_after=PAST + DAY)),
    "not yet valid": server_credentials(
        CA.issue_cert("127.0.0.1", not_before=FUTURE, not_after=FUTURE + DAY)
    ),
}


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(serving(FakeManager(), credentials))
            for name, credentials in SERVERS.items()
        }


EXPIRED_USER = CA.issue_cert("a@example.com", not_before=PAST, not_after=PAST + DAY)

FAULTS = {
    "plain text to TLS": (
        "TLS",
        None,
        r"{} uses TLS, and this client does not: set .*spinc --ca, in Python tls_credentials\)$",
    ),
    "plain text to TLS with certificates": (
        "client certificates",
        None,
        r"{} uses TLS, and this client does not: set .*, and the certificate and its key",
    ),
    "TLS to plain text": ("plain text", client_credentials(), "{} does not use TLS: connect without TLS"),
    "another CA": (
        "TLS",
        client_credentials(OTHER),
        "no CA that this client trusts has signed the certificate",
    ),
    "another host": ("another host", client_credentials(), "the certificate of {} is for another host"),
    "expired": ("expired", client_credentials(), "the certificate of {} has expired: renew it"),
    "not yet valid": ("not yet valid", client_credentials(), "the certificate of {} is not valid yet"),
    "no client certificate": (
        "client certificates",
        client_credentials(),
        "{} uses TLS and closes the connection, probably because it requires a client certificate",
    ),
    "client certificate of another CA": (
        "client certificates",
        client_credentials(certificate=OTHER.issue_cert("a@example.com")),
        "probably because it requires a client certificate",
    ),
    "expired client certificate": (
        "client certificates",
        client_credentials(certificate=EXPIRED_USER),
        "check that .* are set, that the certificate has not expired",
    ),
    "key of another certificate": (
        "TLS",
        client_credentials(
            certificate=CA.issue_cert("a@example.com"),
            key=OTHER.issue_cert("b@example.com").private_key_pem.bytes(),
        ),
        "this client cannot use its TLS files",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_client_says_what_is_wrong(fault: str, addresses: dict[str, str]) -> None:
    server, credentials, message = FAULTS[fault]
    address = addresses[server]
    with (
        Client(address, credentials=credentials) as client,
        pytest.raises(UnavailableError, match=message.format(address)) as raised,
    ):
        client.version()
    assert raised.value.reason == "TLS_FAILED"


async def test_an_asynchronous_client_says_what_is_wrong(addresses: dict[str, str]) -> None:
    async with AsyncClient(addresses["TLS"]) as client:
        with pytest.raises(UnavailableError, match="uses TLS, and this client does not"):
            await client.version()


def test_a_server_that_does_not_run_has_another_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with (
            Client(address, credentials=client_credentials()) as client,
            pytest.raises(UnavailableError, match="check the address, and that a server runs there"),
        ):
            client.version()


async def test_a_server_that_closes_connections_has_another_error() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            with pytest.raises(UnavailableError, match="check the address"):
                await client.version()


class _Http(StreamRequestHandler):
    """Answers the start of HTTP/2 as servers of HTTP/1.1 do."""

    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")


@pytest.mark.parametrize("tls", [False, True])
def test_the_http_address_of_a_server_is_called_so(tls: bool) -> None:
    with ThreadingTCPServer(("127.0.0.1", 0), _Http) as server:
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            CA.issue_cert("127.0.0.1").configure_cert(context)
            context.set_alpn_protocols(["http/1.1"])
            server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        with (
            Client(
                f"127.0.0.1:{server.server_address[1]}", credentials=client_credentials() if tls else None
            ) as client,
            pytest.raises(UnavailableError, match="is an HTTP address: use the server's gRPC address"),
        ):
            client.version()
        server.shutdown()


def test_a_client_with_a_channel_of_its_own_can_still_learn_of_client_certificates(
    addresses: dict[str, str],
) -> None:
    address = addresses["client certificates"]
    with (
        grpc.secure_channel(address, client_credentials()) as channel,
        Client(address, channel=channel) as client,
        pytest.raises(UnavailableError, match="requires a client certificate"),
    ):
        client.version()


def test_a_probe_finds_out_what_a_server_speaks(addresses: dict[str, str]) -> None:
    assert probe(addresses["plain text"]) is Speaks.PLAIN_TEXT
    assert probe(addresses["TLS"]) is Speaks.TLS
    assert probe(addresses["expired"]) is Speaks.TLS
    assert probe(addresses["client certificates"]) is Speaks.TLS_WITH_CERTIFICATES
    assert probe("unix:/tmp/none") is Speaks.UNKNOWN


def test_a_probe_of_a_silent_server_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spincycle_grpc.tls_errors.PROBE_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert probe(f"127.0.0.1:{silent.getsockname()[1]}") is Speaks.UNKNOWN


def test_messages_for_servers_name_their_options() -> None:
    client = ClientTls(True, "rm_client.tls")
    assert tls_error("CERTIFICATE_VERIFY_FAILED: x", "[::1]:1", client).endswith(
        "set rm_client.tls.ca_file to the CA that has"
    )
    assert "rm_client.tls.cert_file and rm_client.tls.key_file" in tls_error(
        "Failed to create security handshaker.", "a:1", client
    )


@pytest.mark.parametrize("details", ["", "Socket closed", "Connection refused", "failed to connect: timeout"])
def test_other_failures_are_not_probed(details: str) -> None:
    assert not closed_while_connecting(details)
    assert tls_error(details, "a:1", ClientTls()) == ""
