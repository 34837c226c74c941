"""Authentication of users by client certificates.

The TLS connection has verified the certificate. One of its names is the name of the user, and the
configuration gives roles to names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from spincycle_grpc.auth import Caller, PeerCertificate
from spincycle_grpc.errors import UnauthenticatedError
from spincycle_server.identity.certificate_names import has_expired, identifies_server, name_in
from spincycle_server.identity.certificate_trust import check_not_expired
from spincycle_server.identity.credentials import Credentials
from spincycle_server.identity.identity import MAX_NAME, Identity

_KIND_NAMES = {
    "common_name": "a common name",
    "dns": "a DNS name",
    "email": "an e-mail address",
    "uri": "a URI",
}


class CertificateMethod:
    """Identifies users by their client certificates.

    Args:
        kind: Which name of a certificate is the name of the user, one of `NAME_KINDS`. The first name of this
            kind counts.
        roles: The roles of users, by name. Other users have no roles.
        servers: The names of certificates that identify servers of the installation. These are not users.
    """

    hint = "a client certificate"

    def __init__(
        self,
        kind: str = "common_name",
        roles: Mapping[str, Collection[str]] | None = None,
        servers: Collection[str] = (),
    ) -> None:
        self._kind = kind
        self._roles = {name: frozenset(given) for name, given in (roles or {}).items()}
        self._servers = frozenset(servers)

    async def identify(self, credentials: Credentials) -> Identity | None:
        """Returns the user of a certificate; None without one, or if it identifies a server.

        Raises:
            UnauthenticatedError: The certificate has expired (CERTIFICATE_EXPIRED), or has no usable name
                of the configured kind (CERTIFICATE_WITHOUT_NAME).
        """
        certificate = credentials.certificate
        if certificate is None or identifies_server(certificate, self._servers):
            return None
        check_not_expired(certificate)
        name = self._name(certificate)
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise UnauthenticatedError(
                f"the client certificate does not have {_KIND_NAMES[self._kind]} of at most {MAX_NAME} "
                "printable characters, which must name the user: use another certificate, or set "
                "auth.certificates.name on the server",
                reason="CERTIFICATE_WITHOUT_NAME",
            )
        caller = Caller(name, self._roles.get(name, frozenset()))
        return Identity(caller, "certificate", is_current=lambda: not has_expired(certificate))

    def _name(self, certificate: PeerCertificate) -> str:
        return name_in(certificate.der, self._kind)
