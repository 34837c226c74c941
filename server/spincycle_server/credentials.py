"""TLS credentials for gRPC, read from PEM files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from spincycle_server.config import ConfigError

if TYPE_CHECKING:
    from spincycle_server.listening import TlsFiles


def server_credentials(tls: TlsFiles) -> grpc.ServerCredentials | None:
    """Returns the credentials of a server, or None if TLS is off.

    Raises:
        ConfigError: A file cannot be read, or the certificate or its key is missing.
    """
    if not tls:
        return None
    if not (tls.cert_file and tls.key_file):
        raise ConfigError("option server.tls: set both cert_file and key_file", reason="BAD_CONFIG")
    root = _read(tls.ca_file) if tls.ca_file else None
    return grpc.ssl_server_credentials(
        [(_read(tls.key_file), _read(tls.cert_file))],
        root_certificates=root,
        require_client_auth=root is not None,
    )


def channel_credentials(tls: TlsFiles) -> grpc.ChannelCredentials | None:
    """Returns the credentials of a client, or None if TLS is off.

    Raises:
        ConfigError: A file cannot be read.
    """
    if not tls:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_read(tls.ca_file) if tls.ca_file else None,
        private_key=_read(tls.key_file) if tls.key_file else None,
        certificate_chain=_read(tls.cert_file) if tls.cert_file else None,
    )


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", reason="BAD_CONFIG") from error
