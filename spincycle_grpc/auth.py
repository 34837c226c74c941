"""The names that an authentication plugin needs: what it gets, what it returns, and what it must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from spincycle_grpc.v1.request_pb2 import Request


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
        not_after: When the certificate expires, with a time zone; None if that is unknown.
        issuers: The certificates of intermediate CAs that the caller sent with it, at most ten.
        emails: The e-mail addresses among `names`.
    """

    common_name: str
    names: frozenset[str]
    der: bytes = field(default=b"", repr=False)
    not_after: datetime | None = None
    issuers: tuple[bytes, ...] = field(default=(), repr=False)
    emails: frozenset[str] = frozenset()


class Authenticator(Protocol):
    """Identifies callers. The option `auth.plugin` names one.

    A coroutine function runs on the server's event loop, so it must not block. A plain function runs in a
    thread. If a function raises an exception that is not a SpinCycleError, or takes longer than
    `auth.timeout`, the call fails.

    A plugin may also have a function `authorize`; see `Authorizer`.
    """

    async def authenticate(
        self, metadata: Mapping[str, str], peer: str, certificate: PeerCertificate | None
    ) -> Caller:
        """Returns the caller.

        The function may also have the first two parameters alone.

        Args:
            metadata: The headers of the call, with names in lower case.
            peer: The caller's address.
            certificate: The certificate of the caller's TLS connection; None without one.

        Raises:
            SpinCycleError: The caller is refused. UnauthenticatedError is the usual class.
        """
        ...


class Authorizer(Protocol):
    """Decides what callers may do, after the access lists have allowed it. A plugin may be one too."""

    async def authorize(self, caller: Caller, op: str, request: Request) -> bool | None:
        """Returns None or True if a caller may do an operation with a request; False otherwise.

        Args:
            caller: What `authenticate` returned. A caller whom another method of authentication identified
                is a plain Caller.
            op: "start" (also to create and to plan), or "stop". With `auth.read: acl` also "view" and "log".
            request: The request with its args, without its job chain. Before it is created, its id is "".

        Raises:
            SpinCycleError: The operation is refused. PermissionDeniedError is the usual class.
        """
        ...
