"""The files of a client's TLS credentials, and the errors of unusable ones."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from spincycle_grpc import Client, errors, tls_credentials
from tests.fake_manager import FakeManager, serving


class Files:
    """The PEM files of a CA, a server and a client."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.ca = self.write("ca.pem", self.authority.cert_pem.bytes())
        client = self.authority.issue_cert("ann@example.com")
        self.cert = self.write("client.pem", b"".join(pem.bytes() for pem in client.cert_chain_pems))
        self.key = self.write("client.key", client.private_key_pem.bytes())

    def write(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def address(files: Files) -> Iterator[str]:
    """A server that requires a certificate of the CA."""
    own = files.authority.issue_cert("127.0.0.1")
    chain = b"".join(pem.bytes() for pem in own.cert_chain_pems)
    credentials = grpc.ssl_server_credentials(
        [(own.private_key_pem.bytes(), chain)], files.ca.read_bytes(), require_client_auth=True
    )
    with serving(FakeManager(), credentials) as served:
        yield served


def test_the_files_identify_both_sides(files: Files, address: str) -> None:
    with Client(address, credentials=tls_credentials(files.ca, str(files.cert), files.key)) as client:
        assert client.version() == "1.0.12"
    with (
        Client(address, credentials=tls_credentials(files.ca)) as stranger,
        pytest.raises(errors.UnavailableError),
    ):
        stranger.version()


def test_without_a_ca_only_public_cas_count(files: Files, address: str) -> None:
    with (
        Client(address, credentials=tls_credentials(cert=files.cert, key=files.key)) as client,
        pytest.raises(errors.UnavailableError),
    ):
        client.version()


def refusal(*given: Path | None) -> str:
    with pytest.raises(errors.InvalidArgumentError) as caught:
        tls_credentials(*given)
    assert caught.value.reason == "BAD_TLS_FILES"
    return caught.value.message


def test_the_error_names_the_unusable_file(files: Files, tmp_path: Path) -> None:
    none, other = tmp_path / "none", files.write("other.key", trustme.CA().private_key_pem.bytes())
    der = files.write("ca.der", ssl.PEM_cert_to_DER_cert(files.ca.read_text()))
    empty = files.write("empty", b"")
    assert refusal(none) == f"cannot read {none}: No such file or directory"
    assert refusal(tmp_path) == f"cannot read {tmp_path}: Is a directory"
    for wrong in (der, empty, files.key):
        assert refusal(wrong) == f"{wrong} has no certificate in PEM format"
    assert refusal(None, files.cert, none) == f"cannot read {none}: No such file or directory"
    assert refusal(None, files.cert, other) == (
        f"the key {other} does not belong to the certificate {files.cert}"
    )
    assert refusal(None, files.cert, files.cert) == (
        f"{files.cert} and {files.cert} must be a certificate and its key in PEM format"
    )
    assert "both, or neither" in refusal(files.ca, files.cert)
    assert "both, or neither" in refusal(files.ca, None, files.key)


def test_a_key_with_a_passphrase_is_refused_without_a_question(files: Files) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    locked = files.write(
        "locked.key",
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        ),
    )
    assert refusal(None, files.cert, locked) == f"the key {locked} has a passphrase: give a key without one"
