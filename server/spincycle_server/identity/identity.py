"""An identified caller, and the protocol of the methods of authentication."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from spincycle_grpc.auth import Caller
from spincycle_grpc.errors import PermissionDeniedError
from spincycle_server.identity.credentials import Credentials
from spincycle_server.telemetry.limits import LimitUse

MAX_NAME = 100
"""The longest name of a user in characters. The database does not store more of it."""


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, and how the server knows.

    Attributes:
        caller: The name and the roles.
        method: The method of authentication: "token", "oidc", "certificate", "plugin", or "cluster" for
            another server of the installation. "" for a caller that was not authenticated.
        is_current: Returns whether the credential is still valid: not expired and not revoked. It costs
            nothing, so open streams ask again and again. It raises UnavailableError if that cannot be known.
    """

    caller: Caller = field(default_factory=Caller)
    method: str = ""
    is_current: Callable[[], bool] = _always


ANONYMOUS = Identity()


class CallerDeniedError(PermissionDeniedError):
    """A known caller may not call a method. The audit log names the caller.

    Args:
        identity: The caller.
        message: As for every error.
        reason: As for every error.
    """

    def __init__(self, identity: Identity, message: str, *, reason: str) -> None:
        super().__init__(message, reason=reason)
        self.identity = identity


class AuthenticationMethod(Protocol):
    """One way to identify users."""

    @property
    def hint(self) -> str:
        """The credential that a caller must send, for the error of a call without one: "an API token"."""
        ...

    async def identify(self, credentials: Credentials) -> Identity | None:
        """Returns who calls; None if the call has no credential of this kind.

        Raises:
            UnauthenticatedError: The credential is invalid, expired or revoked.
            UnavailableError: The credential cannot be checked now.
        """
        ...


@runtime_checkable
class LimitedMethod(AuthenticationMethod, Protocol):
    """A way to identify users that lets only some calls wait at the same time."""

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limits and their use."""
        ...


@runtime_checkable
class RememberingMethod(AuthenticationMethod, Protocol):
    """A way to identify users that remembers credentials which it has identified."""

    def recall(self, credentials: Credentials) -> Identity | None:
        """Returns who calls, if the call has a credential that was identified before and is still valid.

        It never waits, and it raises nothing. None says nothing about the call: `identify` decides.
        """
        ...
