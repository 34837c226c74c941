"""Where a server listens, and with which certificate."""

from __future__ import annotations

from dataclasses import dataclass

GRPC_PORT_OFFSET = 10
"""A server's gRPC port is its HTTP port plus this, unless it is set."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens. Port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads host:port; ":port" is all addresses of this machine.

        Raises:
            ValueError: It has another form.
        """
        host, separator, port = text.rpartition(":")
        if not separator or not port.isdigit() or int(port) > 65535:
            raise ValueError("must be host:port, as 127.0.0.1:32308")
        return cls(host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port))  # noqa: S104 (as asked)

    def for_grpc(self) -> Address:
        """The gRPC address of a server that has this HTTP address, unless another is set."""
        return Address(self.host, self.port + GRPC_PORT_OFFSET if self.port else 0)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for TLS. All empty: no TLS. A CA file makes a server ask its callers for certificates."""

    cert_file: str = ""
    key_file: str = ""
    ca_file: str = ""

    def __bool__(self) -> bool:
        return bool(self.cert_file or self.key_file or self.ca_file)
