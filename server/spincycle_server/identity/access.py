"""Who may do what with which requests: the access lists of the specs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from spincycle_grpc.auth import Caller
from spincycle_grpc.errors import PermissionDeniedError
from spincycle_server.specs.model import OPERATIONS, AclSpec, Specs

START, STOP, VIEW, LOG, RETRY, PAUSE = OPERATIONS


@dataclass(frozen=True, slots=True)
class VisibleTypes:
    """The types of the requests that a caller may see.

    Attributes:
        only: The types; None for all types except `hidden`, including types that the specs no longer have.
        hidden: The types that the caller may not see.
    """

    only: frozenset[str] | None = None
    hidden: frozenset[str] = frozenset()

    @property
    def shows_all(self) -> bool:
        """Whether the caller may see requests of every type."""
        return self.only is None and not self.hidden

    def has(self, request_type: str) -> bool:
        """Whether the caller may see requests of a type."""
        return request_type not in self.hidden and (self.only is None or request_type in self.only)


ALL_TYPES = VisibleTypes()


def denial_message(caller: Caller, action: str, roles: Collection[str]) -> str:
    """Returns the message for a caller who may not do something.

    Args:
        caller: The caller.
        action: What the caller may not do, after "may not".
        roles: The roles that would be allowed.
    """
    allowed = ", ".join(sorted(roles)) or "(none: set auth.admin_roles)"
    return f"caller {caller.name or '(unknown)'} may not {action}: needs one of the roles: {allowed}"


class AccessLists:
    """Decides what callers may do with requests of a type.

    A caller with an admin role may do everything. For a request type with an access list, the list must
    name one of the caller's roles, either as admin or with the operation. A request type without a list
    is open to every caller, or to admin roles alone if the lists are strict.

    Args:
        specs: The request specs, with their access lists.
        admin_roles: The roles that may do everything.
        strict: Whether only admin roles may use request types without an access list.
    """

    def __init__(self, specs: Specs, *, admin_roles: Collection[str] = (), strict: bool = False) -> None:
        self._lists: Mapping[str, tuple[AclSpec, ...]] = {
            name: sequence.acl
            for name, sequence in specs.sequences.items()
            if sequence.request and sequence.acl
        }
        self._admin_roles = frozenset(admin_roles)
        self._strict = strict

    def allow(self, caller: Caller, operation: str, request_type: str) -> bool:
        """Whether a caller may do an operation with requests of a type."""
        entries = self._lists.get(request_type)
        if entries is None and not self._strict:
            return True
        if not self._admin_roles.isdisjoint(caller.roles):
            return True
        return any(entry.role in caller.roles and entry.allows(operation) for entry in entries or ())

    def check(self, caller: Caller, operation: str, request_type: str, request_id: str = "") -> None:
        """Checks that a caller may do an operation.

        Args:
            caller: The caller, with its roles.
            operation: START, STOP, VIEW, LOG, RETRY or PAUSE.
            request_type: The type of the request.
            request_id: The request, for the error; "" for a request that does not exist yet.

        Raises:
            PermissionDeniedError: The caller may not. Reason: ACCESS_DENIED.
        """
        if self.allow(caller, operation, request_type):
            return
        action = "see the job log of" if operation == LOG else operation
        raise PermissionDeniedError(
            denial_message(
                caller, f"{action} requests of type {request_type}", self._roles(operation, request_type)
            ),
            reason="ACCESS_DENIED",
            request_id=request_id,
        )

    def visible_types(self, caller: Caller) -> VisibleTypes:
        """Returns the types of requests that a caller may view."""
        if not self._admin_roles.isdisjoint(caller.roles):
            return ALL_TYPES
        allowed = frozenset(name for name in self._lists if self.allow(caller, VIEW, name))
        if self._strict:
            return VisibleTypes(only=allowed)
        return VisibleTypes(hidden=frozenset(self._lists) - allowed)

    def _roles(self, operation: str, request_type: str) -> frozenset[str]:
        """Returns the roles that may do an operation."""
        listed = {entry.role for entry in self._lists.get(request_type, ()) if entry.allows(operation)}
        return self._admin_roles | listed
