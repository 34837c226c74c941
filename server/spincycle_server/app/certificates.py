"""The certificates of a process, loaded again when their files change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import structlog
from cryptography import x509

from spincycle_server.config import Config, ConfigError
from spincycle_server.identity.certificate_trust import CertificateTrust
from spincycle_server.listening import TlsFiles
from spincycle_server.tls.credentials import ServerTls, channel_tls, server_tls
from spincycle_server.tls.pem_files import names_host
from spincycle_server.tls.reloaded import Reloaded

logger = structlog.get_logger(__name__)

RELOAD_INTERVAL = 5.0
"""Seconds between looks whether the files have changed."""


class Certificates:
    """Loads the certificates that the servers of this process use.

    Args:
        config: The options.

    Attributes:
        server: The certificate of this process's servers; None if TLS is off.

    Raises:
        ConfigError: An option is invalid, or a file is missing or invalid.
    """

    def __init__(self, config: Config) -> None:
        check_client_auth(config)
        self.server: Reloaded[ServerTls] | None = server_tls(config.server_tls, config.server_client_auth)
        self._loaded: list[Reloaded[Any]] = [] if self.server is None else [self.server]
        self._reload = asyncio.Event()

    @property
    def trust(self) -> CertificateTrust | None:
        """Knows whether client certificates are still valid; None if this process asks for none."""
        server = self.server
        if server is None or not server.value.pems.ca:
            return None
        return CertificateTrust(lambda: server.value.pems.ca)

    def channel(self, files: TlsFiles) -> Callable[[], grpc.ChannelCredentials | None]:
        """Returns a function that returns the newest credentials for calls to other servers.

        It returns another object after a change, and None for plain text.

        Raises:
            ConfigError: A file is missing or invalid.
        """
        tls = channel_tls(files)
        if tls is None:
            return lambda: None
        self._loaded.append(tls)
        return lambda: tls.value

    def warn_of_other_host(self, host: str) -> None:
        """Logs a warning if the server's certificate does not contain the host that others call."""
        if self.server is None:
            return
        certificate = x509.load_pem_x509_certificates(self.server.value.pems.cert)[0]
        if not names_host(certificate, host):
            logger.warning(
                "the certificate does not contain the host under which Request Managers call this runner: "
                "set job_runner.advertise to a host that it contains, or use another certificate",
                option="server.tls.cert_file",
                host=host,
            )

    def expiry_times(self) -> Mapping[tuple[str, ...], float]:
        """Returns when each certificate expires, in seconds since the Unix epoch, by its options."""
        times = ((loaded.option, loaded.expires) for loaded in self._loaded)
        return {(option,): expires.timestamp() for option, expires in times if expires is not None}

    def reload(self) -> None:
        """Lets `watch` look at the files now."""
        self._reload.set()

    async def watch(self) -> None:
        """Loads changed files, until it is cancelled."""
        while True:
            for loaded in self._loaded:
                loaded.warn_before_end()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RELOAD_INTERVAL):
                    await self._reload.wait()
            self._reload.clear()
            for loaded in list(self._loaded):
                await asyncio.to_thread(loaded.reload)


def grpc_client_auth(config: Config) -> str:
    """Returns whether clients of gRPC must have a certificate: "none", "request" or "require"."""
    return config.server_grpc_client_auth or config.server_client_auth


def check_client_auth(config: Config) -> None:
    """Checks that the options for client certificates fit together.

    Raises:
        ConfigError: They do not. The message names the option, and what to set instead.
    """
    auth = {config.server_client_auth, grpc_client_auth(config)}
    if auth != {"none"}:
        _require_ca(config, "server.tls.client_auth", "clients are asked for certificates")
    if grpc_client_auth(config) == "request":
        raise _invalid(
            "server.tls.client_auth",
            "Python's gRPC cannot request certificates without requiring them: set require; or set "
            "server.tls.grpc_client_auth to none or require, then request holds for HTTP alone. "
            "cluster.listen gives servers with certificates an address of their own",
        )
    if "certificate" in config.auth_methods and auth == {"none"}:
        raise _invalid(
            "auth.methods",
            "this server does not ask its clients for certificates: set server.tls.client_auth to require",
        )
    if config.cluster_listen is not None:
        _require_ca(config, "cluster.listen", "servers present certificates there")
        if not (config.cluster_certificates or config.cluster_key_file or config.cluster_open):
            raise _invalid("cluster.listen", "needs cluster.certificates, the names of servers' certificates")
    elif config.server_ca_file and auth == {"none"}:
        logger.warning(
            "server.tls.ca_file has no effect: to require client certificates, set server.tls.client_auth"
        )
    if config.cluster_certificates and not config.cluster_open and not config.cluster_key_file:
        _require_certificates_of_servers(config)


def _require_certificates_of_servers(config: Config) -> None:
    if config.cluster_listen is None and grpc_client_auth(config) != "require":
        raise _invalid(
            "cluster.certificates",
            "this server does not ask its clients for certificates: set server.tls.client_auth to require, "
            "or set cluster.listen, where other servers must present one",
        )


def _require_ca(config: Config, option: str, why: str) -> None:
    for name, value in (
        ("cert_file", config.server_cert_file),
        ("key_file", config.server_key_file),
        ("ca_file", config.server_ca_file),
    ):
        if not value:
            raise _invalid(option, f"needs server.tls.{name}, because {why}")


def _invalid(option: str, why: str) -> ConfigError:
    return ConfigError(f"option {option}: {why}", reason="BAD_CONFIG")
