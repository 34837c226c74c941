"""TLS credentials for gRPC and HTTP, from PEM files that may change while the server runs."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from cryptography.hazmat.primitives.serialization import Encoding

from spincycle_server.config import ConfigError
from spincycle_server.listening import TlsFiles
from spincycle_server.tls.failed_handshakes import ObservedObject
from spincycle_server.tls.pem_files import Pems, certificates_in, read_pems
from spincycle_server.tls.reloaded import Reloaded

_VERIFY_MODES = {"none": ssl.CERT_NONE, "request": ssl.CERT_OPTIONAL, "require": ssl.CERT_REQUIRED}


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The newest contents of a server's files.

    Attributes:
        pems: The contents.
        context: Their context for HTTP.
    """

    pems: Pems
    context: ssl.SSLContext


def server_tls(files: TlsFiles, client_auth: str = "none") -> Reloaded[ServerTls] | None:
    """Returns the certificate of a server, or None if TLS is off.

    Args:
        files: The files.
        client_auth: Whether clients of HTTP must have a certificate: "none", "request" or "require".

    Raises:
        ConfigError: A file is missing or invalid.
    """
    if not files:
        return None
    if not files.cert_file and not files.key_file:
        raise ConfigError(
            f"option {files.option}.cert_file: must be set too, because {files.option}.ca_file is set",
            reason="BAD_CONFIG",
        )
    return Reloaded(files, partial(_server_tls, files, client_auth))


def _server_tls(files: TlsFiles, client_auth: str, pems: Pems) -> ServerTls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = ObservedObject
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.cert_file, files.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"option {files.option}.cert_file: OpenSSL does not accept {files.cert_file}: {error}",
            reason="BAD_CONFIG",
        ) from error
    # Python loads a certificate only by its path, so the file may be newer than the contents.
    if read_pems(files) != pems:
        raise ConfigError(
            f"option {files.option}.cert_file: the files changed while they were read: try again",
            reason="BAD_CONFIG",
        )
    context.verify_mode = _VERIFY_MODES[client_auth]
    if client_auth != "none":
        _verify_clients(context, files, pems)
    return ServerTls(pems, context)


def _verify_clients(context: ssl.SSLContext, files: TlsFiles, pems: Pems) -> None:
    """Lets a context accept the client certificates that gRPC accepts."""
    # A resumed session has the client's certificate, but not its intermediate CAs.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    # An intermediate CA may stand for itself, as it may for gRPC.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    authorities = certificates_in(pems.ca, files, "ca_file")
    try:
        context.load_verify_locations(
            cadata=b"".join(authority.public_bytes(Encoding.DER) for authority in authorities)
        )
    except ssl.SSLError as error:
        raise ConfigError(
            f"option {files.option}.ca_file: OpenSSL does not accept {files.ca_file}: {error}",
            reason="BAD_CONFIG",
        ) from error


class _NewestContext(ssl.SSLContext):
    """Gives each new connection the newest context. Open connections keep theirs."""

    newest: Callable[[], ssl.SSLContext]

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        return self.newest().wrap_bio(*arguments, **named)


def http_context(tls: Reloaded[ServerTls] | None) -> ssl.SSLContext | None:
    """Returns the context for an HTTP server in an event loop, or None if TLS is off."""
    if tls is None:
        return None
    context = _NewestContext(ssl.PROTOCOL_TLS_SERVER)
    context.newest = lambda: tls.value.context
    return context


def server_credentials(
    tls: Reloaded[ServerTls] | None, *, require_client_auth: bool = False
) -> grpc.ServerCredentials | None:
    """Returns the credentials of one gRPC server, or None if TLS is off. gRPC uses them for one server alone.

    Args:
        tls: The certificate.
        require_client_auth: Whether clients must have a certificate that a CA of the CA file signed.
    """
    if tls is None:
        return None
    given = tls.value

    def changed() -> Any:
        """Returns the newest contents for a connection that opens; None if gRPC has them."""
        nonlocal given
        newest = tls.value
        if newest is given:
            return None
        given = newest
        return _configuration(newest.pems, with_ca=require_client_auth)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given.pems, with_ca=require_client_auth), changed, require_client_auth
    )


def _configuration(pems: Pems, *, with_ca: bool) -> Any:
    return grpc.ssl_server_certificate_configuration([(pems.key, pems.cert)], pems.ca if with_ca else None)


def channel_tls(files: TlsFiles) -> Reloaded[grpc.ChannelCredentials] | None:
    """Returns the credentials of calls to other servers, or None if TLS is off.

    Raises:
        ConfigError: A file is missing or invalid.
    """
    return Reloaded(files, _channel_credentials) if files else None


def _channel_credentials(pems: Pems) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=pems.ca or None,
        private_key=pems.key or None,
        certificate_chain=pems.cert or None,
    )
