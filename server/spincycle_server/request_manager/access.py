"""Who may start and stop which requests: the access lists of the specs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from spincycle_grpc.errors import PermissionDeniedError

if TYPE_CHECKING:
    from spincycle_grpc.caller import Caller
    from spincycle_server.specs.model import AclSpec, Specs

START = "start"
STOP = "stop"


class AccessLists:
    """Decides whether a caller may do something with requests of one type.

    A caller with one of the admin roles may do everything. Otherwise, where a request spec has
    an access list, one of the caller's roles must stand in it, as admin or with the operation.
    Where it has none, everybody may, unless the lists are strict.

    Args:
        specs: The specs with their lists.
        admin_roles: Roles that may do everything.
        strict: Whether requests without a list are for admins alone.
    """

    def __init__(self, specs: Specs, *, admin_roles: Collection[str] = (), strict: bool = False) -> None:
        self._lists: Mapping[str, tuple[AclSpec, ...]] = {
            name: sequence.acl for name, sequence in specs.sequences.items() if sequence.request
        }
        self._admin_roles = frozenset(admin_roles)
        self._strict = strict

    def check(self, caller: Caller, operation: str, request_type: str, request_id: str = "") -> None:
        """Does nothing when the caller may, and raises when not.

        Raises:
            PermissionDeniedError: The caller may not do this.
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
