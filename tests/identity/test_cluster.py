"""How servers recognize each other: by a key, or by a listed certificate."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import UnauthenticatedError
from spincycle_server.identity import Cluster, Credentials, PeerCertificate
from spincycle_server.identity.cluster import KEY_HEADER
from tests.certificates import PAST

KEY, NEXT_KEY = "k" * 43, "n" * 43


def keys(*values: str) -> Cluster:
    return Cluster(keys=lambda: values)


def presenting(key: str) -> Credentials:
    return Credentials({KEY_HEADER: key})


def certificate(*names: str) -> Credentials:
    return Credentials(certificate=PeerCertificate(names[0], frozenset(names), b""))


def test_a_server_with_the_key_is_admitted() -> None:
    assert keys(KEY).admits(presenting(KEY))


@pytest.mark.parametrize("key", ["", KEY[:-1], KEY + "k", KEY.upper(), "\udcff" * 43, "\N{SNOWMAN}" * 43])
def test_another_key_is_not_admitted(key: str) -> None:
    assert not keys(KEY).admits(presenting(key))


def test_a_refusal_says_what_the_call_had_and_shows_no_key() -> None:
    cluster = Cluster(keys=lambda: [KEY], certificates=["runner"])
    assert cluster.why_not(Credentials()) == "this call has neither a key nor a certificate"
    assert cluster.why_not(presenting(NEXT_KEY)) == "the key of this call is not a key of this server"
    refusal = cluster.why_not(certificate("runer", "host\x1b"))
    assert "the names 'host\\x1b, runer', is not in cluster.certificates" in refusal
    assert len(cluster.why_not(certificate("x" * 5000))) < 300
    expired = PeerCertificate("runner", frozenset({"runner"}), b"", not_after=PAST)
    assert cluster.why_not(Credentials(certificate=expired)) == "the certificate of this call has expired"


def test_a_call_without_a_key_is_not_admitted_by_a_server_without_a_key() -> None:
    assert not Cluster().admits(Credentials())
    assert not Cluster().admits(presenting(""))
    assert not keys("").admits(presenting(""))


def test_each_of_several_keys_is_admitted_and_the_first_is_sent() -> None:
    cluster = keys(NEXT_KEY, KEY)
    assert cluster.admits(presenting(KEY))
    assert cluster.admits(presenting(NEXT_KEY))
    assert cluster.metadata() == ((KEY_HEADER, NEXT_KEY),)


def test_every_key_is_compared_although_the_first_one_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(presented: bytes, key: bytes) -> bool:
        compared.append(key)
        return presented == key

    monkeypatch.setattr("spincycle_server.identity.cluster.hmac.compare_digest", compare)
    assert keys(KEY, NEXT_KEY).admits(presenting(KEY))
    assert compared == [KEY.encode(), NEXT_KEY.encode()]


def test_a_key_that_is_removed_is_no_longer_admitted() -> None:
    current = [KEY, NEXT_KEY]
    cluster = Cluster(keys=lambda: current)
    current.remove(KEY)
    assert not cluster.admits(presenting(KEY))


def test_a_key_that_is_sent_twice_is_refused() -> None:
    twice = Credentials({KEY_HEADER: f"{KEY}, {KEY}"}, repeated=frozenset({KEY_HEADER}))
    with pytest.raises(UnauthenticatedError) as raised:
        keys(KEY).admits(twice)
    assert raised.value.reason == "REPEATED_CREDENTIALS"
    assert KEY not in str(raised.value)


def test_a_certificate_with_a_listed_name_is_admitted() -> None:
    cluster = Cluster(certificates=["runner.example.com"])
    assert cluster.admits(certificate("anything", "runner.example.com"))


@pytest.mark.parametrize("name", ["alice", "runner.example.com.evil.org", "RUNNER", "*.example.com", ""])
def test_other_certificates_are_users(name: str) -> None:
    assert not Cluster(certificates=["runner.example.com"]).admits(certificate(name))


def test_the_key_counts_although_the_certificate_is_not_listed() -> None:
    cluster = Cluster(keys=lambda: (KEY,), certificates=["runner.example.com"])
    alice = certificate("alice")
    assert cluster.admits(Credentials({KEY_HEADER: KEY}, certificate=alice.certificate))
    assert not cluster.admits(alice)


def test_an_open_cluster_admits_everybody_and_sends_no_key() -> None:
    assert Cluster(is_open=True).admits(Credentials())
    assert Cluster(is_open=True).metadata() == ()
