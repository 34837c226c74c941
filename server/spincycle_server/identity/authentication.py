"""Identifies the caller of each method, and refuses callers who may not call it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from copy import copy
from dataclasses import replace
from typing import TypeVar

from spincycle_grpc.errors import UnauthenticatedError
from spincycle_server.identity.access import denial_message
from spincycle_server.identity.certificate_trust import CertificateTrust
from spincycle_server.identity.certificates import CertificateMethod
from spincycle_server.identity.cluster import KEY_HEADER, Cluster
from spincycle_server.identity.credentials import AUTHORIZATION, Credentials
from spincycle_server.identity.identity import (
    ANONYMOUS,
    AuthenticationMethod,
    CallerDeniedError,
    Identity,
    LimitedMethod,
    RememberingMethod,
)
from spincycle_server.identity.method_access import MethodAccess
from spincycle_server.identity.permissions import SecondCheck
from spincycle_server.identity.plugin import PluginMethod
from spincycle_server.telemetry.limits import LimitUse

_Method = TypeVar("_Method", bound=AuthenticationMethod)


class Authentication:
    """Identifies callers.

    Without a method of authentication, users have neither name nor roles, and may call every method that is
    not for servers.

    Args:
        methods: The methods of authentication. The first one that finds a credential of its kind decides.
        cluster: Recognizes other servers of the installation.
        admin_roles: The roles that may call the methods for administrators.
        metrics_roles: The roles that may read the metrics, besides those of administrators.
        trust: Knows whether a certificate is still valid. None: a certificate is valid until it expires.
    """

    def __init__(
        self,
        methods: Sequence[AuthenticationMethod] = (),
        cluster: Cluster | None = None,
        *,
        admin_roles: Collection[str] = (),
        metrics_roles: Collection[str] = (),
        trust: CertificateTrust | None = None,
    ) -> None:
        self._methods = tuple(methods)
        self._cluster = cluster or Cluster(is_open=True)
        self._admin_roles = frozenset(admin_roles)
        self._metrics_roles = frozenset(metrics_roles) | self._admin_roles
        self._trust = trust
        self._admins_read = False
        self._cluster_reads = not self._cluster.is_open

    def of_runner(self, *, admins_read: bool) -> Authentication:
        """Returns the same authentication for a Job Runner, which has no access lists.

        If the cluster is open, everybody may read: a Request Manager that reads has no key.

        Args:
            admins_read: Whether reading needs an admin role, unless another server reads.
        """
        runners = copy(self)
        runners._admins_read = admins_read
        runners._cluster_reads = True
        return runners

    @property
    def second_check(self) -> SecondCheck | None:
        """The method of authentication that also decides what callers may do with a request, if one does."""
        return next(
            (it for it in self._methods if isinstance(it, PluginMethod) and it.authorizes),
            None,
        )

    def method_of(self, kind: type[_Method]) -> _Method | None:
        """Returns the method of authentication of a class; None if it is off."""
        return next((it for it in self._methods if isinstance(it, kind)), None)

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limits of the methods of authentication, and their use."""
        return [use for one in self._methods if isinstance(one, LimitedMethod) for use in one.limits()]

    @property
    def is_on(self) -> bool:
        """Whether users are authenticated."""
        return bool(self._methods)

    def admits_anybody(self, access: MethodAccess) -> bool:
        """Whether everybody may call a method. It does not change.

        `identify` need not be asked then, unless the call repeats a header or has a certificate.
        """
        return access is MethodAccess.PUBLIC or not (self._methods or access is MethodAccess.SERVER)

    def recall_for(self, access: MethodAccess) -> Callable[[Credentials], Identity | None] | None:
        """Returns a function that identifies most callers of a method without waiting; None if there is none.

        The function returns None if it does not know the caller: `identify` decides then. It answers nearly
        every call with an API token or a JWT, or of another server without a certificate. It costs much less
        than a coroutine for each step.
        """
        if access is MethodAccess.SERVER:
            return self._recalled_server
        by_header = (method for method in self._methods if not isinstance(method, CertificateMethod))
        first = next(by_header, None)  # The first method that finds a credential decides.
        anybody_may = access is MethodAccess.REQUEST or (
            access is MethodAccess.READ
            and not self._admins_read
            and not (self._cluster_reads and self._cluster.is_open)
        )
        if not isinstance(first, RememberingMethod) or not anybody_may:
            return None
        recall = first.recall

        def recalled(credentials: Credentials) -> Identity | None:
            if credentials.repeated or credentials.certificate is not None:
                return None
            return None if KEY_HEADER in credentials.metadata else recall(credentials)

        return recalled

    async def identify(self, access: MethodAccess, credentials: Credentials) -> Identity:
        """Returns who calls a method, if the caller may call it.

        Args:
            access: Who may call the method.
            credentials: What the caller presents.

        Raises:
            UnauthenticatedError: The caller is unknown, or a header with credentials is repeated.
            PermissionDeniedError: The caller is known, but may not call this method.
            UnavailableError: The credentials cannot be checked now.
        """
        if access is MethodAccess.PUBLIC:
            return ANONYMOUS
        certificate, trust = credentials.certificate, self._trust
        if certificate is None or trust is None:
            return await self._identified(access, credentials)
        trust.check(certificate)
        identity = await self._identified(access, credentials)
        return replace(identity, is_current=lambda: identity.is_current() and trust.is_valid(certificate))

    async def _identified(self, access: MethodAccess, credentials: Credentials) -> Identity:
        if credentials.repeated:  # Even if no method reads the header, another server in between may do so.
            credentials.header(AUTHORIZATION)
            credentials.header(KEY_HEADER)
        if access is MethodAccess.SERVER:
            return await self._server(credentials)
        if not self._methods:
            return ANONYMOUS
        if access is MethodAccess.READ and self._cluster_reads and self._cluster.admits(credentials):
            return self._server_identity(credentials)
        user = await self._user(credentials)
        if user is None:
            raise UnauthenticatedError(self._advice(), reason="NO_CREDENTIALS")
        if access is MethodAccess.METRICS:
            _check_roles(user, self._metrics_roles, "read the metrics")
        if access is MethodAccess.ADMIN or (access is MethodAccess.READ and self._admins_read):
            _check_roles(user, self._admin_roles, "do this")
        return user

    async def _server(self, credentials: Credentials) -> Identity:
        if self._cluster.admits(credentials):
            return self._server_identity(credentials)
        user = await self._known_user(credentials)
        refusal = (
            f"only servers of this installation may call this method: {self._cluster.why_not(credentials)}"
        )
        if user is not None:
            raise CallerDeniedError(user, refusal, reason="SERVERS_ONLY")
        raise UnauthenticatedError(
            f"{refusal}. Give both servers the same cluster.key_file, or list their certificates in "
            "cluster.certificates",
            reason="SERVERS_ONLY",
        )

    def _recalled_server(self, credentials: Credentials) -> Identity | None:
        if credentials.repeated or credentials.certificate is not None:
            return None
        return self._server_identity(credentials) if self._cluster.admits(credentials) else None

    def _server_identity(self, credentials: Credentials) -> Identity:
        return Identity(method="cluster", is_current=lambda: self._cluster.admits(credentials))

    async def _known_user(self, credentials: Credentials) -> Identity | None:
        try:
            return await self._user(credentials)
        except UnauthenticatedError:
            return None

    async def _user(self, credentials: Credentials) -> Identity | None:
        for method in self._methods:
            identity = await method.identify(credentials)
            if identity is not None:
                return identity
        return None

    def _advice(self) -> str:
        return f"the caller is unknown: send {' or '.join(method.hint for method in self._methods)}"


def _check_roles(user: Identity, roles: frozenset[str], action: str) -> None:
    if roles.isdisjoint(user.caller.roles):
        raise CallerDeniedError(user, denial_message(user.caller, action, roles), reason="ACCESS_DENIED")
