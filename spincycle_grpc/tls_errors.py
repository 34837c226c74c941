"""Says what is wrong when a connection cannot be opened because of TLS.

gRPC names most faults in its details, for its developers. If a server closes a connection while it opens,
gRPC does not know why: then a second connection finds out whether the server uses TLS.
"""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from enum import Enum

PROBE_TIMEOUT = 2.0
"""Seconds for each step of a probe: to connect, for the handshake, and for the server's first bytes."""

_CLOSED_WHILE_CONNECTING = re.compile(
    r"failed to connect to all addresses.*(Socket closed|Connection reset|Broken pipe|end of TCP stream)"
)
_HOST_AND_PORT = re.compile(r"\[?(?P<host>[^\[\]/]+)\]?:(?P<port>[0-9]+)", re.ASCII)

_PLAIN_TEXT = (
    "{address} does not use TLS: connect without TLS, or turn it on at the server with server.tls.cert_file "
    "and server.tls.key_file"
)

_MESSAGES = {
    "WRONG_VERSION_NUMBER": _PLAIN_TEXT,
    "Hostname Verification Check failed": "the certificate of {address} is for another host: use a host name "
    "that it contains, or give the server a certificate for {host}",
    "certificate has expired": "the certificate of {address} has expired: renew it on the server, or check "
    "the clocks of both machines",
    "certificate is not yet valid": "the certificate of {address} is not valid yet: check the clocks of both "
    "machines",
    "CERTIFICATE_VERIFY_FAILED": "no CA that this client trusts has signed the certificate of {address}: set "
    "{ca} to the CA that has",
    "Failed to create security handshaker": "this client cannot use its TLS files: check that {certificate} "
    "belong together, and that {ca} has certificates",
}
"""The messages by a part of gRPC's details. The first part that occurs counts."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How a client connects, for messages about it.

    Attributes:
        is_on: Whether it uses TLS; None if that is unknown, because the channel was made elsewhere.
        options: The group of options of a server that sets its TLS, such as "rm_client.tls"; "" for users.
    """

    is_on: bool | None = None
    options: str = ""

    @property
    def ca(self) -> str:
        """The setting of the CAs that the client trusts."""
        return (
            f"{self.options}.ca_file"
            if self.options
            else "the CA file (spinc --ca, in Python tls_credentials)"
        )

    @property
    def certificate(self) -> str:
        """The settings of the client's certificate."""
        if self.options:
            return f"{self.options}.cert_file and {self.options}.key_file"
        return "the certificate and its key (spinc --cert --key, in Python tls_credentials)"


class Speaks(Enum):
    """The result of a probe."""

    UNKNOWN = "unknown"
    PLAIN_TEXT = "plain text"
    TLS = "TLS"
    TLS_WITH_CERTIFICATES = "TLS that requires client certificates"


def tls_error(details: str, address: str, client: ClientTls) -> str:
    """Returns what is wrong, and what to do, from gRPC's details of a failed connection.

    Args:
        details: gRPC's details.
        address: host:port of the server.
        client: How the client connects.

    Returns:
        A message; "" if the details do not name a fault of TLS.
    """
    for part, message in _MESSAGES.items():
        if part in details:
            return message.format(
                address=address, host=_host(address), ca=client.ca, certificate=client.certificate
            )
    return ""


def closed_while_connecting(details: str) -> bool:
    """Whether the server closed the connection while it opened, so that only a probe can tell why."""
    return _CLOSED_WHILE_CONNECTING.search(details) is not None


def probed_error(address: str, client: ClientTls) -> str:
    """Finds out why a server closes connections while they open. Blocks for up to three PROBE_TIMEOUT.

    It opens a connection, and sends nothing but the start of TLS.

    Returns:
        What is wrong, and what to do; "" if it is not TLS.
    """
    speaks = probe(address)
    if speaks is Speaks.PLAIN_TEXT and client.is_on:
        return _PLAIN_TEXT.format(address=address)
    if speaks in (Speaks.TLS, Speaks.TLS_WITH_CERTIFICATES) and client.is_on is False:
        also = f", and {client.certificate}" if speaks is Speaks.TLS_WITH_CERTIFICATES else ""
        return f"{address} uses TLS, and this client does not: set {client.ca}{also}"
    if speaks is Speaks.TLS_WITH_CERTIFICATES:
        return (
            f"{address} uses TLS and closes the connection, probably because it requires a client "
            f"certificate: check that {client.certificate} are set, that the certificate has not expired, "
            "and that the server trusts its CA (server.tls.ca_file)"
        )
    return ""


def probe(address: str) -> Speaks:
    """Connects to a server and finds out whether it uses TLS. Verifies nothing, and sends no credentials."""
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None:
        return Speaks.UNKNOWN
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])  # gRPC servers refuse other clients.
    try:
        with socket.create_connection((match["host"], int(match["port"])), PROBE_TIMEOUT) as connection:
            return _speaks(connection, context, match["host"])
    except OSError:
        return Speaks.UNKNOWN


def _speaks(connection: socket.socket, context: ssl.SSLContext, host: str) -> Speaks:
    try:
        secured = context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLError as error:
        return _refusal(error)
    with secured:
        try:
            # With TLS 1.3, a server that requires a certificate refuses only after the client's handshake.
            # A gRPC server then closes the connection without a word. Otherwise it sends its settings.
            return Speaks.TLS if secured.recv(1) else Speaks.TLS_WITH_CERTIFICATES
        except TimeoutError:
            return Speaks.TLS
        except OSError:
            return Speaks.TLS_WITH_CERTIFICATES


def _refusal(error: ssl.SSLError) -> Speaks:
    reason = error.reason or ""
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return Speaks.PLAIN_TEXT
    return Speaks.TLS if "ALERT" in reason else Speaks.UNKNOWN


def _host(address: str) -> str:
    match = _HOST_AND_PORT.fullmatch(address)
    return match["host"] if match else address
