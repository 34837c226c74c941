"""Certificates for tests, written as the PEM files that the options name."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import trustme

PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
FUTURE = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Files:
    """The PEM files of one certificate."""

    cert: str
    key: str


def write_ca(directory: Path, *authorities: trustme.CA, name: str = "ca") -> str:
    """Writes the certificates of authorities into one file, and returns its path."""
    path = directory / f"{name}.pem"
    replace(path, b"".join(authority.cert_pem.bytes() for authority in authorities))
    return str(path)


def write_certificate(directory: Path, name: str, certificate: trustme.LeafCert) -> Files:
    """Writes a certificate and its key over the files of that name."""
    files = Files(str(directory / f"{name}.pem"), str(directory / f"{name}-key.pem"))
    replace(Path(files.key), certificate.private_key_pem.bytes())
    replace(Path(files.cert), b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    return files


def replace(path: Path, content: bytes) -> None:
    """Replaces a file in one step, so that no reader sees a part of it."""
    written = path.with_suffix(".new")
    written.write_bytes(content)
    written.replace(path)
