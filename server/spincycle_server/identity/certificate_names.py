"""Reads the names of a certificate."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from spincycle_grpc.auth import PeerCertificate


def read_certificate(certificate: x509.Certificate) -> PeerCertificate:
    """Returns a certificate with its names, as the methods of authentication and the plugin see it."""
    common_names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    common_name = str(common_names[0].value) if common_names else ""
    return PeerCertificate(
        common_name=common_name,
        names=frozenset({name for name in (common_name, *_alternative_names(certificate)) if name}),
        der=certificate.public_bytes(Encoding.DER),
    )


def _alternative_names(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    names = extension.value
    return [
        *names.get_values_for_type(x509.DNSName),
        *names.get_values_for_type(x509.RFC822Name),
        *names.get_values_for_type(x509.UniformResourceIdentifier),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    ]
