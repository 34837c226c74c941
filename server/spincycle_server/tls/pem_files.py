"""Certificates and keys in PEM files: reads them, and says what is wrong with them."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from spincycle_server.config import ConfigError
from spincycle_server.listening import TlsFiles


@dataclass(frozen=True, slots=True)
class Pems:
    """The contents of the files. A file that no option names is empty."""

    cert: bytes
    key: bytes
    ca: bytes


def read_pems(files: TlsFiles) -> Pems:
    """Returns the contents of the files.

    Raises:
        ConfigError: A file cannot be read, or only one of certificate and key is given.
    """
    if bool(files.cert_file) != bool(files.key_file):
        missing = "key_file" if files.cert_file else "cert_file"
        raise _invalid(files, missing, "must be set too: a certificate and its key belong together")
    return Pems(
        cert=_read(files, "cert_file", files.cert_file),
        key=_read(files, "key_file", files.key_file),
        ca=_read(files, "ca_file", files.ca_file),
    )


def check_pems(pems: Pems, files: TlsFiles) -> None:
    """Checks that the contents are valid and belong together.

    Raises:
        ConfigError: They are not. The message names the option, the file and what is wrong with it.
    """
    if files.ca_file:
        certificates_in(pems.ca, files, "ca_file")
    if not files.cert_file:
        return
    certificate = certificates_in(pems.cert, files, "cert_file")[0]
    _check_key(pems.key, certificate, files)
    now = datetime.now(UTC)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    which = f"the certificate in {files.cert_file}"
    if end <= now:
        raise _invalid(files, "cert_file", f"{which} expired on {end:%Y-%m-%d %H:%M} UTC: renew it")
    if start > now:
        raise _invalid(
            files,
            "cert_file",
            f"{which} is valid from {start:%Y-%m-%d %H:%M} UTC: check this machine's clock",
        )


def certificates_in(pem: bytes, files: TlsFiles, name: str) -> list[x509.Certificate]:
    """Returns the certificates of a file: at least one.

    Args:
        pem: The content.
        files: The files.
        name: Which of the files it is, "cert_file" or "ca_file".

    Raises:
        ConfigError: The file has no certificate, or an invalid one.
    """
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise _invalid(
            files, name, f"{getattr(files, name)} does not contain a valid certificate in PEM format"
        ) from error


def names_host(certificate: x509.Certificate, host: str) -> bool:
    """Whether clients that connect to a host accept it as the owner of a certificate.

    Args:
        certificate: The certificate of a server. Only its alternative names count, as for all TLS clients.
        host: A host name or an IP address.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    host = host.lower()
    _, _, parent = host.partition(".")
    patterns = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    return host in patterns or (bool(parent) and f"*.{parent}" in patterns)


def _check_key(pem: bytes, certificate: x509.Certificate, files: TlsFiles) -> None:
    try:
        key = load_pem_private_key(pem, None)
        own = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        certified = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except TypeError as error:  # It would need a password.
        raise _invalid(
            files, "key_file", f"the key in {files.key_file} is encrypted: store it without a password"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _invalid(
            files, "key_file", f"{files.key_file} does not contain a valid private key in PEM format"
        ) from error
    if own != certified:
        raise _invalid(
            files,
            "key_file",
            f"the key in {files.key_file} does not belong to the first certificate in {files.cert_file}",
        )


def _read(files: TlsFiles, name: str, path: str) -> bytes:
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _invalid(files, name, f"cannot read {path}: {error.strerror}") from error


def _invalid(files: TlsFiles, name: str, why: str) -> ConfigError:
    return ConfigError(f"option {files.option}.{name}: {why}", reason="BAD_CONFIG")
