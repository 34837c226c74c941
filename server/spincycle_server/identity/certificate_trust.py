"""Whether a certificate that TLS has verified is still valid: it expires, and its CA can be removed.

TLS verifies a certificate when its connection opens, and a connection can stay open for weeks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from spincycle_grpc.auth import PeerCertificate
from spincycle_grpc.errors import UnauthenticatedError
from spincycle_server.identity.certificate_names import MAX_CERTIFICATES, has_expired


class CertificateTrust:
    """Knows whether certificates are still valid.

    Args:
        authorities: Returns the certificates of the CAs that are trusted now, in one PEM text.
    """

    def __init__(self, authorities: Callable[[], bytes]) -> None:
        self._authorities = authorities

    def is_valid(self, certificate: PeerCertificate) -> bool:
        """Whether a certificate has not expired, and one of the CAs has issued it."""
        return not has_expired(certificate) and self._is_trusted(certificate)

    def check(self, certificate: PeerCertificate) -> None:
        """Checks that a certificate is still valid.

        Raises:
            UnauthenticatedError: It has expired (CERTIFICATE_EXPIRED), or its CA was removed
                (CERTIFICATE_NOT_TRUSTED).
        """
        check_not_expired(certificate)
        if not self._is_trusted(certificate):
            raise UnauthenticatedError(
                "the server no longer trusts the CA of the client certificate: connect again with a new one",
                reason="CERTIFICATE_NOT_TRUSTED",
            )

    def _is_trusted(self, certificate: PeerCertificate) -> bool:
        return _is_issued(certificate.der, certificate.issuers, self._authorities())


def check_not_expired(certificate: PeerCertificate) -> None:
    """Checks that a certificate has not expired.

    Raises:
        UnauthenticatedError: It has. Reason: CERTIFICATE_EXPIRED.
    """
    if has_expired(certificate):
        raise UnauthenticatedError(
            "the client certificate has expired: connect again with a new one", reason="CERTIFICATE_EXPIRED"
        )


@lru_cache(MAX_CERTIFICATES)
def _is_issued(der: bytes, issuers: tuple[bytes, ...], authorities: bytes) -> bool:
    """Whether a path of issuers leads from a certificate to an authority.

    TLS has verified everything else, such as the constraints of the CAs on the path.
    """
    trusted = x509.load_pem_x509_certificates(authorities)
    sent = [x509.load_der_x509_certificate(issuer) for issuer in issuers]
    reached = [x509.load_der_x509_certificate(der)]
    for certificate in reached:  # grows while it is read
        if certificate in trusted or any(_issued(certificate, authority) for authority in trusted):
            return True
        reached += _issuers_among(sent, certificate, reached)
    return False


def _issuers_among(
    sent: Sequence[x509.Certificate], certificate: x509.Certificate, reached: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    return [issuer for issuer in sent if issuer not in reached and _issued(certificate, issuer)]


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, InvalidSignature):
        return False
    except (TypeError, UnsupportedAlgorithm):
        return True  # The names match, and TLS knows this algorithm and has verified the signature.
    return True
