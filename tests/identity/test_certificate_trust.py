"""Certificates of open connections: they expire, and their CAs can be removed."""

from __future__ import annotations

import datetime

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from spincycle_grpc.auth import PeerCertificate
from spincycle_grpc.errors import UnauthenticatedError
from spincycle_server.identity import Authentication, Cluster, Credentials, MethodAccess, certificate_of_pem
from spincycle_server.identity.certificate_names import MAX_ISSUERS
from spincycle_server.identity.certificate_trust import CertificateTrust
from spincycle_server.identity.certificates import CertificateMethod
from tests.certificates import PAST

ROOT = trustme.CA()
INTERMEDIATE = ROOT.create_child_ca()
OTHER = trustme.CA()


def issued(
    authority: trustme.CA, *, sends_issuers: bool = True, not_after: datetime.datetime | None = None
) -> PeerCertificate:
    leaf = authority.issue_cert(
        "alice@example.com", common_name="alice", not_before=PAST, not_after=not_after
    )
    own, *issuers = [pem.bytes() for pem in leaf.cert_chain_pems]
    certificate = certificate_of_pem(own, b"".join(issuers) if sends_issuers else b"")
    assert certificate is not None
    return certificate


def pem(*authorities: trustme.CA) -> bytes:
    return b"".join(authority.cert_pem.bytes() for authority in authorities)


@pytest.mark.parametrize(
    ("certificate", "authorities", "is_valid"),
    [
        (issued(ROOT), pem(ROOT), True),
        (issued(ROOT), pem(OTHER, ROOT), True),
        (issued(ROOT), pem(OTHER), False),
        (issued(INTERMEDIATE), pem(ROOT), True),
        (issued(INTERMEDIATE), pem(OTHER), False),
        (issued(INTERMEDIATE, sends_issuers=False), pem(INTERMEDIATE), True),
        (issued(INTERMEDIATE, sends_issuers=False), pem(ROOT), False),
        (issued(ROOT, not_after=PAST), pem(ROOT), False),
    ],
)
def test_a_certificate_is_valid_while_a_trusted_ca_stands_behind_it(
    certificate: PeerCertificate, authorities: bytes, is_valid: bool
) -> None:
    assert CertificateTrust(lambda: authorities).is_valid(certificate) is is_valid


def test_a_ca_of_the_same_name_with_another_key_is_not_trusted() -> None:
    forged = trustme.CA(organization_name="twin", organization_unit_name="twin")
    real = trustme.CA(organization_name="twin", organization_unit_name="twin")
    assert not CertificateTrust(lambda: pem(real)).is_valid(issued(forged))


def test_only_some_of_the_issuers_that_a_caller_sends_count() -> None:
    leaf = ROOT.issue_cert("alice@example.com")
    many = pem(*(trustme.CA() for _ in range(MAX_ISSUERS + 5)))
    certificate = certificate_of_pem(leaf.cert_chain_pems[0].bytes(), many)
    assert certificate is not None
    assert len(certificate.issuers) == MAX_ISSUERS
    assert x509.load_der_x509_certificate(certificate.issuers[0]).public_bytes(Encoding.PEM) in many


class Authorities:
    """The CAs of a server, which a test changes."""

    def __init__(self, *authorities: trustme.CA) -> None:
        self.now = pem(*authorities)

    def __call__(self) -> bytes:
        return self.now


@pytest.mark.parametrize("access", [MethodAccess.REQUEST, MethodAccess.SERVER])
async def test_a_removed_ca_ends_the_streams_and_refuses_the_calls_of_its_certificates(
    access: MethodAccess,
) -> None:
    authorities = Authorities(ROOT)
    names = ["alice"] if access is MethodAccess.SERVER else []
    authentication = Authentication(
        [CertificateMethod(servers=names)],
        Cluster(certificates=names),
        trust=CertificateTrust(authorities),
    )
    credentials = Credentials(certificate=issued(ROOT))
    identity = await authentication.identify(access, credentials)
    assert identity.is_current()
    authorities.now = pem(OTHER)
    assert not identity.is_current()
    with pytest.raises(UnauthenticatedError, match="no longer trusts the CA") as raised:
        await authentication.identify(access, credentials)
    assert raised.value.reason == "CERTIFICATE_NOT_TRUSTED"


async def test_an_expired_certificate_refuses_calls_that_need_no_identity() -> None:
    authentication = Authentication(trust=CertificateTrust(lambda: pem(ROOT)))
    with pytest.raises(UnauthenticatedError) as raised:
        await authentication.identify(
            MethodAccess.READ, Credentials(certificate=issued(ROOT, not_after=PAST))
        )
    assert raised.value.reason == "CERTIFICATE_EXPIRED"
