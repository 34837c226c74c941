"""The names that an authentication plugin needs: what it returns, and what it must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity of a caller. Without authentication both fields are empty.

    Attributes:
        name: The user's name. The server stores it as the user of the requests that the caller creates.
        roles: The caller's roles. Access lists of request specs name the roles that they allow.
    """

    name: str = ""
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The certificate that a caller's TLS connection presented. The server's CA has signed it.

    Attributes:
        common_name: The common name of the subject; "" without one.
        names: The common name and all subject alternative names: DNS names, e-mail addresses, URIs and IP
            addresses.
        der: The certificate itself.
    """

    common_name: str
    names: frozenset[str]
    der: bytes = field(default=b"", repr=False)


class Authenticator(Protocol):
    """Identifies callers. The option `auth.plugin` names one."""

    async def authenticate(self, metadata: Mapping[str, str], peer: str) -> Caller:
        """Returns the caller.

        Args:
            metadata: The headers of the call, with names in lower case.
            peer: The caller's address.

        Raises:
            SpinCycleError: The caller is refused. UnauthenticatedError is the usual class.
        """
        ...
