"""The servers of one installation: how they recognize each other.

A server proves that it belongs to the installation with a shared key or with a certificate whose name is
listed. Other certificates of the same CA identify users.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Sequence

from spincycle_server.identity.certificate_names import has_expired, identifies_server
from spincycle_server.identity.credentials import Credentials

KEY_HEADER = "spincycle-cluster-key"
"""The header that carries the key."""

_LONGEST_NAMES = 200
"""The most characters of a certificate's names in a message."""


class Cluster:
    """Recognizes the other servers of the installation, and identifies this server to them.

    Args:
        keys: Returns the keys that are valid now. This server sends the first one and accepts each of them.
        certificates: The names of certificates that identify servers.
        is_open: Whether every caller counts as a server of the installation.
        is_private: Whether the installation consists of this process: nobody else knows the key.
    """

    def __init__(
        self,
        *,
        keys: Callable[[], Sequence[str]] = tuple,
        certificates: Collection[str] = (),
        is_open: bool = False,
        is_private: bool = False,
    ) -> None:
        self._keys = keys
        self._certificates = frozenset(certificates)
        self.is_open = is_open
        self.is_private = is_private

    def admits(self, credentials: Credentials) -> bool:
        """Whether a caller is a server of the installation.

        Raises:
            UnauthenticatedError: The call has the key more than once. Reason: REPEATED_CREDENTIALS.
        """
        if self.is_open:
            return True
        if self._has_certificate(credentials):
            return True
        presented = credentials.header(KEY_HEADER).encode("utf-8", "surrogateescape")
        if not presented:
            return False
        # Every key is compared, so that the time does not tell which one is close.
        matches = [hmac.compare_digest(presented, key.encode()) for key in self._keys()]
        return any(matches)

    def _has_certificate(self, credentials: Credentials) -> bool:
        certificate = credentials.certificate
        return (
            certificate is not None
            and identifies_server(certificate, self._certificates)
            and not has_expired(certificate)
        )

    def why_not(self, credentials: Credentials) -> str:
        """Says why `admits` is false, for the operator of the calling server. It shows no key."""
        certificate = credentials.certificate
        if certificate is not None and has_expired(certificate):
            return "the certificate of this call has expired"
        if credentials.header(KEY_HEADER):
            return "the key of this call is not a key of this server"
        if certificate is not None:
            names = ascii(", ".join(sorted(certificate.names))[:_LONGEST_NAMES])
            return f"the certificate of this call, with the names {names}, is not in cluster.certificates"
        return "this call has neither a key nor a certificate"

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the gRPC metadata that identifies this server to another one."""
        keys = self._keys()
        return ((KEY_HEADER, keys[0]),) if keys else ()
