"""The options for client certificates, and the files that change while servers run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
from cryptography import x509

from spincycle_server.app.certificates import Certificates, grpc_client_auth
from spincycle_server.config import Config, ConfigError
from spincycle_server.listening import Address, TlsFiles
from tests.certificates import write_ca, write_certificate
from tests.limits import STEP

AUTHORITY = trustme.CA()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """The options of a server's files."""
    own = write_certificate(tmp_path, "own", AUTHORITY.issue_cert("127.0.0.1"))
    return {
        "server_cert_file": own.cert,
        "server_key_file": own.key,
        "server_ca_file": write_ca(tmp_path, AUTHORITY),
    }


SERVERS = ("rm.example.com",)


@pytest.mark.parametrize(
    ("options", "missing", "message"),
    [
        (
            {"server_client_auth": "request"},
            "",
            r"option server\.tls\.client_auth: Python's gRPC cannot request",
        ),
        ({"server_client_auth": "require"}, "ca", r"server\.tls\.client_auth: needs server\.tls\.ca_file"),
        ({"server_client_auth": "require"}, "cert", r"client_auth: needs server\.tls\.cert_file"),
        ({"server_grpc_client_auth": "require"}, "ca", r"client_auth: needs server\.tls\.ca_file"),
        (
            {"auth_methods": ("certificate",)},
            "",
            r"option auth\.methods: this server does not ask its clients",
        ),
        ({"cluster_certificates": SERVERS}, "", r"option cluster\.certificates: this server does not ask"),
        (
            {
                "cluster_certificates": SERVERS,
                "server_client_auth": "require",
                "server_grpc_client_auth": "none",
            },
            "",
            r"option cluster\.certificates: this server does not ask",
        ),
        (
            {"cluster_listen": Address("127.0.0.1", 1)},
            "",
            r"option cluster\.listen: needs cluster\.certificates",
        ),
        (
            {"cluster_listen": Address("127.0.0.1", 1), "cluster_certificates": SERVERS},
            "ca",
            r"option cluster\.listen: needs server\.tls\.ca_file",
        ),
    ],
)
def test_options_that_do_not_fit_together_are_refused_with_what_to_set(
    files: dict[str, Any], options: dict[str, Any], missing: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Certificates(
            Config(**{**files, f"server_{missing}_file": "", **options} if missing else files | options)
        )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"server_client_auth": "require", "auth_methods": ("certificate",)},
        {
            "server_client_auth": "request",
            "server_grpc_client_auth": "none",
            "auth_methods": ("certificate",),
        },
        {"server_client_auth": "require", "cluster_certificates": SERVERS},
        {"cluster_listen": Address("127.0.0.1", 1), "cluster_certificates": SERVERS},
        {"cluster_certificates": SERVERS, "cluster_key_file": "key"},
    ],
)
def test_options_that_fit_together_are_accepted(files: dict[str, Any], options: dict[str, Any]) -> None:
    certificates = Certificates(Config(**files, **options))
    assert certificates.server is not None
    assert certificates.trust is not None


def test_the_option_for_grpc_alone_overrides_the_common_one() -> None:
    assert grpc_client_auth(Config(server_client_auth="require")) == "require"
    assert grpc_client_auth(Config(server_client_auth="request", server_grpc_client_auth="none")) == "none"


def test_a_ca_file_without_an_effect_is_logged(files: dict[str, Any]) -> None:
    with structlog.testing.capture_logs() as log:
        Certificates(Config(**files))
        Certificates(Config(**files, server_client_auth="require"))
    assert [entry["event"].partition(" has no effect")[0] for entry in log] == ["server.tls.ca_file"]


def test_without_files_there_is_no_tls() -> None:
    certificates = Certificates(Config())
    assert certificates.server is None
    assert certificates.trust is None
    assert certificates.channel(TlsFiles())() is None


@pytest.mark.parametrize("by_signal", [True, False])
async def test_changed_files_are_loaded_at_intervals_and_on_a_signal(
    files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_signal: bool
) -> None:
    monkeypatch.setattr(
        "spincycle_server.app.certificates.RELOAD_INTERVAL", STEP * 100 if by_signal else 0.01
    )
    certificates = Certificates(Config(**files))
    outgoing = certificates.channel(TlsFiles(ca_file=files["server_ca_file"], option="rm_client.tls"))
    assert certificates.server is not None
    old = certificates.server.value, outgoing()
    watching = asyncio.create_task(certificates.watch())
    write_ca(tmp_path, trustme.CA())
    if by_signal:
        certificates.reload()
    async with asyncio.timeout(STEP):
        while certificates.server.value is old[0] or outgoing() is old[1]:  # noqa: ASYNC110 (has no event)
            await asyncio.sleep(0.01)
    watching.cancel()


def test_the_expiry_of_each_certificate_is_known_by_its_option(files: dict[str, Any]) -> None:
    certificates = Certificates(Config(**files))
    certificates.channel(TlsFiles(ca_file=files["server_ca_file"], option="jr_client.tls"))
    certificates.channel(
        TlsFiles(files["server_cert_file"], files["server_key_file"], option="rm_client.tls")
    )
    own = x509.load_pem_x509_certificates(Path(files["server_cert_file"]).read_bytes())[0]
    expires = own.not_valid_after_utc.timestamp()
    assert certificates.expiry_times() == {("server.tls",): expires, ("rm_client.tls",): expires}
