"""The verified certificate of a gRPC connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cryptography import x509

from spincycle_server.identity import PeerCertificate, read_certificate


def certificate_of(auth_context: Mapping[str, Iterable[bytes]]) -> PeerCertificate | None:
    """Returns the certificate of a connection from gRPC's `auth_context`; None if it has no certificate."""
    pem = next(iter(auth_context.get("x509_pem_cert", ())), None)
    return None if pem is None else read_certificate(x509.load_pem_x509_certificate(pem))
