"""Who calls with a client certificate."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from spincycle_grpc import Caller, UnauthenticatedError
from spincycle_grpc.auth import PeerCertificate
from spincycle_server.identity import (
    Cluster,
    Credentials,
    certificate_of_der,
    certificate_of_pem,
    certificates,
)
from spincycle_server.identity import read_certificate as read
from spincycle_server.identity.certificates import CertificateMethod
from tests.certificates import PAST

AUTHORITY = trustme.CA()


def issued(
    *names: str, common_name: str | None = None, not_after: datetime.datetime | None = None
) -> PeerCertificate:
    leaf = AUTHORITY.issue_cert(*names, common_name=common_name, not_before=PAST, not_after=not_after)
    return read(x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()))


ALICE = issued("alice@example.com", "b.example.com", "a.example.com", common_name="alice")


@pytest.mark.parametrize(
    ("kind", "name"), [("common_name", "alice"), ("email", "alice@example.com"), ("dns", "b.example.com")]
)
async def test_the_first_name_of_the_configured_kind_is_the_name_of_the_user(kind: str, name: str) -> None:
    method = CertificateMethod(kind, {name: ["dba", "admin"], "bob": ["root"]})
    identity = await method.identify(Credentials(certificate=ALICE))
    assert identity is not None
    assert identity.caller == Caller(name, frozenset({"dba", "admin"}))
    assert identity.method == "certificate"


async def test_a_user_without_configured_roles_has_none() -> None:
    identity = await CertificateMethod(roles={"alice@example.com": ["dba"]}).identify(
        Credentials(certificate=ALICE)
    )
    assert identity is not None
    assert identity.caller == Caller("alice")


async def test_a_call_without_a_certificate_is_left_to_other_methods() -> None:
    assert await CertificateMethod().identify(Credentials({"authorization": "Bearer x"})) is None


async def test_a_certificate_that_identifies_a_server_is_no_user() -> None:
    method = CertificateMethod(roles={"runner": ["admin"]}, servers=["runner.example.com"])
    certificate = issued("runner.example.com", common_name="runner")
    assert await method.identify(Credentials(certificate=certificate)) is None


@pytest.mark.parametrize("kind", [x509.RFC822Name, x509.UniformResourceIdentifier])
async def test_an_email_address_or_a_text_that_is_not_a_uri_does_not_identify_a_server(
    kind: Callable[[str], x509.GeneralName],
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "eve")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, PAST, PAST + datetime.timedelta(36500))
    builder = builder.add_extension(x509.SubjectAlternativeName([kind("runner")]), critical=False)
    credentials = Credentials(certificate=read(builder.sign(key, hashes.SHA256())))
    assert not Cluster(certificates=["runner"]).admits(credentials)
    identity = await CertificateMethod(servers=["runner"]).identify(credentials)
    assert identity is not None
    assert identity.caller == Caller("eve")


async def test_a_certificate_without_a_name_of_the_configured_kind_is_refused() -> None:
    with pytest.raises(UnauthenticatedError, match="does not have a URI") as raised:
        await CertificateMethod("uri").identify(Credentials(certificate=ALICE))
    assert raised.value.reason == "CERTIFICATE_WITHOUT_NAME"


@pytest.mark.parametrize("name", ["ada\nroot", "ada\0", "\x1b[2Jada", "\N{RIGHT-TO-LEFT MARK}ada", "a" * 101])
async def test_a_name_that_is_not_printable_or_too_long_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "name_in", lambda der, kind: name)
    with pytest.raises(UnauthenticatedError) as raised:
        await CertificateMethod(roles={name: ["admin"]}).identify(Credentials(certificate=ALICE))
    assert raised.value.reason == "CERTIFICATE_WITHOUT_NAME"


async def test_a_certificate_that_expired_after_the_connection_opened_is_refused() -> None:
    old = issued("old@example.com", common_name="old", not_after=PAST + datetime.timedelta(1))
    with pytest.raises(UnauthenticatedError) as raised:
        await CertificateMethod().identify(Credentials(certificate=old))
    assert raised.value.reason == "CERTIFICATE_EXPIRED"


async def test_an_identity_is_current_until_its_certificate_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = await CertificateMethod().identify(Credentials(certificate=ALICE))
    assert identity is not None
    assert ALICE.not_after is not None
    end = ALICE.not_after.timestamp()
    monkeypatch.setattr("spincycle_server.identity.certificate_names.time.time", lambda: end - 1)
    assert identity.is_current()
    monkeypatch.setattr("spincycle_server.identity.certificate_names.time.time", lambda: end)
    assert not identity.is_current()


def test_an_expired_certificate_identifies_no_server() -> None:
    cluster = Cluster(certificates=["runner"])
    old = issued("runner.example.com", common_name="runner", not_after=PAST)
    assert cluster.admits(Credentials(certificate=issued("runner.example.com", common_name="runner")))
    assert not cluster.admits(Credentials(certificate=old))


def test_all_names_of_a_certificate_are_read() -> None:
    certificate = issued("10.0.0.1", "alice@example.com", "a.example.com", common_name="alice")
    assert certificate.common_name == "alice"
    assert certificate.names == {"alice", "10.0.0.1", "alice@example.com", "a.example.com"}


def test_a_certificate_that_cannot_be_parsed_is_ignored() -> None:
    assert certificate_of_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n") is None
    assert certificate_of_der(b"\x30\x00") is None


def test_the_two_forms_of_a_certificate_give_the_same_names() -> None:
    leaf = AUTHORITY.issue_cert("a.example.com", common_name="a")
    pem = leaf.cert_chain_pems[0].bytes()
    from_pem = certificate_of_pem(pem)
    assert from_pem is not None
    assert certificate_of_der(from_pem.der) == from_pem
