"""The verified certificate of a gRPC connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from spincycle_server.identity import PeerCertificate, certificate_of_pem


def certificate_of(auth_context: Mapping[str, Iterable[bytes]]) -> PeerCertificate | None:
    """Returns the certificate of a connection from gRPC's `auth_context`; None if it has no certificate."""
    pem = next(iter(auth_context.get("x509_pem_cert", ())), None)
    if pem is None:
        return None
    return certificate_of_pem(pem, b"".join(auth_context.get("x509_pem_cert_chain", ())))
