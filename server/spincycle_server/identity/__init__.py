"""Who calls a method, and whether the caller may: users and other servers of the installation."""

from spincycle_server.identity.authentication import Authentication
from spincycle_server.identity.certificate_names import (
    certificate_of_der,
    certificate_of_pem,
    read_certificate,
)
from spincycle_server.identity.cluster import Cluster
from spincycle_server.identity.credentials import Credentials, PeerCertificate
from spincycle_server.identity.identity import ANONYMOUS, AuthenticationMethod, CallerDeniedError, Identity
from spincycle_server.identity.method_access import (
    METHOD_ACCESS,
    PATH_ACCESS,
    READ_BY_SERVERS,
    MethodAccess,
)

__all__ = [
    "ANONYMOUS",
    "METHOD_ACCESS",
    "PATH_ACCESS",
    "READ_BY_SERVERS",
    "Authentication",
    "AuthenticationMethod",
    "CallerDeniedError",
    "Cluster",
    "Credentials",
    "Identity",
    "MethodAccess",
    "PeerCertificate",
    "certificate_of_der",
    "certificate_of_pem",
    "read_certificate",
]
