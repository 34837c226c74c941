"""Who may start and stop which requests: the access lists of the specs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from spincycle_grpc.errors import PermissionDeniedError

if TYPE_CHECKING:
    from spincycle_grpc.auth import Caller
    from spincycle_server.specs.model import AclSpec, Specs

START = "start"
STOP = "stop"


class AccessLists:
    """Decides which callers may start and stop requests of a type.

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
            name: sequence.acl for name, sequence in specs.sequences.items() if sequence.request
        }
        self._admin_roles = frozenset(admin_roles)
        self._strict = strict

    def check(self, caller: Caller, operation: str, request_type: str, request_id: str = "") -> None:
        """Checks that a caller may do an operation.

        Args:
            caller: The caller, with its roles.
            operation: START or STOP.
            request_type: The type of the request.
            request_id: The request, for the error; "" for a request that does not exist yet.

        Raises:
            PermissionDeniedError: The caller may not. Reason: ACCESS_DENIED.
        """
        entries = self._lists.get(request_type, ())
        if not entries and not self._strict:
            return
        if not self._admin_roles.isdisjoint(caller.roles):
            return
        if any(entry.role in caller.roles and (entry.admin or operation in entry.ops) for entry in entries):
            return
        raise PermissionDeniedError(
            f"caller {caller.name or '(unknown)'} may not {operation} requests of type {request_type}",
            reason="ACCESS_DENIED",
            request_id=request_id,
        )
