"""Reads the names and the end of a certificate.

A connection has one certificate and many calls, so the results are cached.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from functools import lru_cache

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from spincycle_grpc.auth import PeerCertificate

logger = structlog.get_logger(__name__)

MAX_CERTIFICATES = 1024
"""The most certificates whose names are remembered, in each of the caches."""

MAX_ISSUERS = 10
"""The most certificates of intermediate CAs that count. A caller can send any number of them."""

NAME_KINDS = ("common_name", "dns", "email", "uri")
"""The kinds of names that can identify a user."""

_ALTERNATIVE_NAMES: dict[str, type[x509.DNSName | x509.RFC822Name | x509.UniformResourceIdentifier]] = {
    "dns": x509.DNSName,
    "email": x509.RFC822Name,
    "uri": x509.UniformResourceIdentifier,
}


@lru_cache(MAX_CERTIFICATES)
def certificate_of_pem(pem: bytes, issuers: bytes = b"") -> PeerCertificate | None:
    """Returns a verified certificate with its names; None if it cannot be parsed.

    The log says so then. OpenSSL accepts some certificates that violate the standard.

    Args:
        pem: The certificate.
        issuers: The certificates of intermediate CAs that the caller sent, in one text.
    """
    try:
        chain = x509.load_pem_x509_certificates(issuers)[:MAX_ISSUERS] if issuers else []
        return read_certificate(x509.load_pem_x509_certificate(pem), chain)
    except ValueError as error:
        logger.warning("client certificate ignored, because it cannot be parsed", error=str(error))
        return None


@lru_cache(MAX_CERTIFICATES)
def certificate_of_der(der: bytes, issuers: tuple[bytes, ...] = ()) -> PeerCertificate | None:
    """Returns a verified certificate with its names, as `certificate_of_pem` does."""
    try:
        chain = [x509.load_der_x509_certificate(issuer) for issuer in issuers[:MAX_ISSUERS]]
        return read_certificate(x509.load_der_x509_certificate(der), chain)
    except ValueError as error:
        logger.warning("client certificate ignored, because it cannot be parsed", error=str(error))
        return None


def read_certificate(
    certificate: x509.Certificate, issuers: Iterable[x509.Certificate] = ()
) -> PeerCertificate:
    """Returns a certificate with its names, as the methods of authentication and the plugin see it.

    Raises:
        ValueError: A part of the certificate violates the standard.
    """
    common_name = _common_name(certificate)
    return PeerCertificate(
        common_name=common_name,
        names=frozenset({name for name in (common_name, *_all_alternative_names(certificate)) if name}),
        der=certificate.public_bytes(Encoding.DER),
        not_after=certificate.not_valid_after_utc,
        issuers=tuple(issuer.public_bytes(Encoding.DER) for issuer in issuers),
        emails=frozenset(_emails(certificate)),
    )


def identifies_server(certificate: PeerCertificate, servers: Collection[str]) -> bool:
    """Whether a name of a certificate is the name of a server.

    An e-mail address is the name of a person, whatever its text is.
    """
    return any(name in servers for name in certificate.names - certificate.emails)


@lru_cache(MAX_CERTIFICATES)
def name_in(der: bytes, kind: str) -> str:
    """Returns the first name of a kind in a certificate, in the order of the certificate; "" without one.

    Args:
        der: The certificate, which `read_certificate` can read.
        kind: One of `NAME_KINDS`.
    """
    certificate = x509.load_der_x509_certificate(der)
    if kind == "common_name":
        return _common_name(certificate)
    names = _alternative_names(certificate)
    found = names.get_values_for_type(_ALTERNATIVE_NAMES[kind]) if names is not None else []
    return found[0] if found else ""


def has_expired(certificate: PeerCertificate) -> bool:
    """Whether the certificate's time is over. TLS checks this only when a connection opens."""
    return certificate.not_after is not None and certificate.not_after.timestamp() <= time.time()


def _common_name(certificate: x509.Certificate) -> str:
    common_names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common_names[0].value) if common_names else ""


def _all_alternative_names(certificate: x509.Certificate) -> list[str]:
    names = _alternative_names(certificate)
    if names is None:
        return []
    return [
        *names.get_values_for_type(x509.DNSName),
        *names.get_values_for_type(x509.RFC822Name),
        # Without a scheme it is not a URI, but could be the name of a server.
        *(uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if ":" in uri),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    ]


def _emails(certificate: x509.Certificate) -> list[str]:
    names = _alternative_names(certificate)
    return [] if names is None else names.get_values_for_type(x509.RFC822Name)


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
