"""The credentials of a call: its headers, and the certificate of its TLS connection."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from spincycle_grpc.auth import PeerCertificate
from spincycle_grpc.errors import UnauthenticatedError

__all__ = ["AUTHORIZATION", "Credentials", "PeerCertificate"]

AUTHORIZATION = "authorization"
"""The header of bearer tokens."""


_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Credentials(NamedTuple):  # Each call makes them, and a frozen dataclass takes four times as long.
    """The credentials of one call.

    Attributes:
        metadata: Headers, by names in lower case.
        peer: The caller's address.
        certificate: The verified certificate of the caller's connection; None without one.
        repeated: The names of headers that the call has more than once.
    """

    metadata: Mapping[str, str] = _NO_HEADERS
    peer: str = ""
    certificate: PeerCertificate | None = None
    repeated: frozenset[str] = frozenset()

    def header(self, name: str) -> str:
        """Returns the value of a header with credentials; "" if the call does not have it.

        Raises:
            UnauthenticatedError: The call has the header more than once, so it is unclear who calls. Reason:
                REPEATED_CREDENTIALS.
        """
        if name in self.repeated:
            raise UnauthenticatedError(
                f"the header {name} was sent more than once: send it once", reason="REPEATED_CREDENTIALS"
            )
        return self.metadata.get(name, "")

    @property
    def bearer_token(self) -> str:
        """The token of `Authorization: Bearer`; "" without one.

        Raises:
            UnauthenticatedError: As for `header`.
        """
        scheme, _, token = self.header(AUTHORIZATION).partition(" ")
        return token.strip(" ") if scheme.lower() == "bearer" else ""
