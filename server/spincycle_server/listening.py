"""The address and the TLS files of an endpoint."""

from __future__ import annotations

import os
from dataclasses import dataclass

from spincycle_grpc.loopback import is_loopback_host

GRPC_PORT_OFFSET = 10
"""The default gRPC port of a server is its HTTP port plus this."""


LONGEST_SOCKET_PATH = 107
"""The longest path of a unix socket in bytes, on Linux."""

_UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Address:
    """The address of an endpoint. With port 0, the system chooses the port.

    A unix socket has the host "unix:PATH" and no port.
    """

    host: str
    port: int

    def __str__(self) -> str:
        if self.is_unix:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parses host:port or unix:PATH. ":port" means all addresses of this machine.

        Raises:
            ValueError: The text has another form.
        """
        if text.startswith(_UNIX):
            if not 0 < len(os.fsencode(text.removeprefix(_UNIX))) <= LONGEST_SOCKET_PATH:
                raise ValueError(f"the path after unix: must have 1 to {LONGEST_SOCKET_PATH} bytes")
            return cls(text, 0)
        host, separator, port = text.rpartition(":")
        if not separator or not port.isdigit() or int(port) > 65535:
            raise ValueError("must be host:port, such as 127.0.0.1:32308, or unix:PATH")
        return cls(host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port))  # noqa: S104 (the user asked for it)

    @property
    def is_unix(self) -> bool:
        """Whether the address is a unix socket."""
        return self.host.startswith(_UNIX)

    @property
    def socket_path(self) -> str:
        """The path of a unix socket."""
        return self.host.removeprefix(_UNIX)

    @property
    def is_loopback(self) -> bool:
        """Whether only processes of this machine can reach the address."""
        return self.is_unix or is_loopback_host(self.host)

    @property
    def reachable_here(self) -> Address:
        """The address at which this machine reaches a server that listens on the address."""
        return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host), self.port)  # noqa: S104 (it listens nowhere)

    def for_grpc(self) -> Address:
        """Returns the default gRPC address of a server with this HTTP address.

        That of unix:PATH is unix:PATH.grpc.
        """
        if self.is_unix:
            return Address(f"{self.host}.grpc", 0)
        return Address(self.host, self.port + GRPC_PORT_OFFSET if self.port else 0)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files for TLS. If all are empty, TLS is off.

    Attributes:
        cert_file: The own certificate, followed by those of intermediate CAs.
        key_file: The key of the own certificate.
        ca_file: The certificates of the CAs that sign the other side's certificates.
        option: The group of options that names the files, for errors.
    """

    cert_file: str = ""
    key_file: str = ""
    ca_file: str = ""
    option: str = "server.tls"

    def __bool__(self) -> bool:
        return bool(self.cert_file or self.key_file or self.ca_file)
