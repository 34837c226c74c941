"""PEM files: the errors that name what is wrong, and changes while a server runs."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from spincycle_server.certificate_files import Reloaded
from spincycle_server.config import ConfigError
from spincycle_server.listening import TlsFiles
from spincycle_server.pem_files import Pems
from tests.certificates import FUTURE, PAST, replace, write_ca, write_certificate

AUTHORITY = trustme.CA()


def build(pems: Pems) -> Pems:
    return pems


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
        Reloaded(files, build)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_new_file_leaves_the_old_value_until_it_is_repaired(fault: str, tmp_path: Path) -> None:
    reloaded = Reloaded(files_in(tmp_path), build)
    old = reloaded.value
    spoil, message = FAULTS[fault]
    spoil(tmp_path)
    with structlog.testing.capture_logs() as log:
        reloaded.reload()
        reloaded.reload()
    assert reloaded.value is old
    assert [entry["event"] for entry in log] == [
        "new certificate files not used, the old ones stay in use"
    ], "one warning for each fault"
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(log[0]["error"])
    files_in(tmp_path)
    reloaded.reload()
    assert reloaded.value != old


def test_a_key_without_a_certificate_is_refused(tmp_path: Path) -> None:
    key = write_certificate(tmp_path, "own", AUTHORITY.issue_cert("a.b")).key
    with pytest.raises(ConfigError, match=r"option server\.tls\.cert_file: must be set too"):
        Reloaded(TlsFiles(key_file=key), build)


def test_files_that_were_written_again_with_the_same_contents_change_nothing(tmp_path: Path) -> None:
    files = files_in(tmp_path)
    reloaded = Reloaded(files, build)
    old = reloaded.value
    replace(tmp_path / "own.pem", (tmp_path / "own.pem").read_bytes())
    reloaded.reload()
    assert reloaded.value is old


def test_a_value_that_cannot_be_built_leaves_the_old_one(tmp_path: Path) -> None:
    def refuse_second(pems: Pems) -> Pems:
        if built:
            raise ConfigError("not this one")
        built.append(pems)
        return pems

    built: list[Pems] = []
    reloaded = Reloaded(files_in(tmp_path), refuse_second)
    files_in(tmp_path)
    reloaded.reload()
    assert reloaded.value is built[0]


@pytest.mark.parametrize(
    ("lifetime", "left", "warning"),
    [
        (365, 15, []),
        (365, 13, ["certificate expires soon"]),
        (4, 1.1, []),
        (4, 0.9, ["certificate expires soon"]),
        (365, -1, ["certificate has expired"]),
    ],
)
def test_a_certificate_that_ends_soon_is_logged_once_a_day(
    tmp_path: Path, lifetime: float, left: float, warning: list[str]
) -> None:
    end = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(days=lifetime / 2)
    reissue(tmp_path, not_before=end - datetime.timedelta(days=lifetime), not_after=end)
    reloaded = Reloaded(TlsFiles(str(tmp_path / "own.pem"), str(tmp_path / "own-key.pem")), build)
    now = end - datetime.timedelta(days=left)
    with structlog.testing.capture_logs() as log:
        reloaded.warn_before_end(now)
        reloaded.warn_before_end(now + datetime.timedelta(hours=1))
    assert [entry["event"] for entry in log] == warning
    with structlog.testing.capture_logs() as log:
        reloaded.warn_before_end(now + datetime.timedelta(days=1))
    assert len(log) >= len(warning)
