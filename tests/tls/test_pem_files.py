"""PEM files: the errors that name what is wrong."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from spincycle_server.config import ConfigError
from spincycle_server.listening import TlsFiles
from spincycle_server.tls.pem_files import check_pems, names_host, read_pems
from tests.certificates import FUTURE, PAST, replace, write_ca, write_certificate

AUTHORITY = trustme.CA()


def files_in(directory: Path) -> TlsFiles:
    own = write_certificate(directory, "own", AUTHORITY.issue_cert("own.example.com"))
    return TlsFiles(own.cert, own.key, write_ca(directory, AUTHORITY), "jr_client.tls")


def encrypt_key(directory: Path) -> None:
    path = directory / "own-key.pem"
    key = load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret"))
    )


def reissue(directory: Path, **times: datetime.datetime) -> None:
    leaf = AUTHORITY.issue_cert(
        "own.example.com", not_before=times["not_before"], not_after=times["not_after"]
    )
    write_certificate(directory, "own", leaf)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "key of another certificate": (
        lambda path: replace(path / "own-key.pem", trustme.CA().issue_cert("a.b").private_key_pem.bytes()),
        r"option jr_client\.tls\.key_file: the key in .*own-key\.pem does not belong to the first certificate"
        r" in .*own\.pem",
    ),
    "key file is a certificate": (
        lambda path: replace(path / "own-key.pem", (path / "own.pem").read_bytes()),
        r"option jr_client\.tls\.key_file: .*own-key\.pem does not contain a valid private key",
    ),
    "encrypted key": (encrypt_key, r"key_file: the key in .* is encrypted: store it without a password"),
    "certificate file is text": (
        lambda path: replace(path / "own.pem", b"hello"),
        r"option jr_client\.tls\.cert_file: .*own\.pem does not contain a valid certificate",
    ),
    "CA file is empty": (
        lambda path: replace(path / "ca.pem", b""),
        r"option jr_client\.tls\.ca_file: .*ca\.pem does not contain a valid certificate",
    ),
    "certificate is missing": (
        lambda path: (path / "own.pem").unlink(),
        r"option jr_client\.tls\.cert_file: cannot read .*own\.pem: No such file",
    ),
    "certificate has expired": (
        lambda path: reissue(path, not_before=PAST, not_after=PAST + datetime.timedelta(days=1)),
        r"option jr_client\.tls\.cert_file: the certificate in .* expired on 2020-01-02 00:00 UTC: renew it",
    ),
    "certificate is not valid yet": (
        lambda path: reissue(path, not_before=FUTURE, not_after=FUTURE + datetime.timedelta(days=1)),
        r"is valid from 2100-01-01 00:00 UTC: check this machine's clock",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_refused_with_its_option_and_what_is_wrong(fault: str, tmp_path: Path) -> None:
    files = files_in(tmp_path)
    spoil, message = FAULTS[fault]
    spoil(tmp_path)
    with pytest.raises(ConfigError, match=message):
        check_pems(read_pems(files), files)


def test_a_key_without_a_certificate_is_refused(tmp_path: Path) -> None:
    key = write_certificate(tmp_path, "own", AUTHORITY.issue_cert("a.b")).key
    with pytest.raises(ConfigError, match=r"option server\.tls\.cert_file: must be set too"):
        read_pems(TlsFiles(key_file=key))


@pytest.mark.parametrize(
    ("host", "is_named"),
    [
        ("a.example.com", True),
        ("A.Example.com", True),
        ("b.example.com", False),
        ("x.wild.example.com", True),
        ("x.y.wild.example.com", False),
        ("wild.example.com", False),
        ("10.0.0.1", True),
        ("10.0.0.2", False),
        ("::1", True),
        ("0:0::1", True),
        ("com", False),
        ("common.example.com", False),
    ],
)
def test_a_certificate_names_its_hosts(host: str, is_named: bool) -> None:
    leaf = AUTHORITY.issue_cert(
        "a.example.com", "*.wild.example.com", "10.0.0.1", "::1", common_name="common.example.com"
    )
    certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
    assert names_host(certificate, host) is is_named


def test_a_certificate_without_alternative_names_names_no_host() -> None:
    assert not names_host(x509.load_pem_x509_certificate(AUTHORITY.cert_pem.bytes()), "a.example.com")
