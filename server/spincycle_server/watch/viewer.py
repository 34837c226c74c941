"""What the caller of a watch may see. It is asked for each message, because access lists can be reloaded."""

from __future__ import annotations

from dataclasses import dataclass

from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.identity import Identity
from spincycle_server.identity.access import LOG, VIEW, VisibleTypes
from spincycle_server.identity.permissions import Permissions


@dataclass(frozen=True, slots=True)
class Viewer:
    """A caller and the permissions."""

    permissions: Permissions
    identity: Identity

    @property
    def is_restricted(self) -> bool:
        """Whether the access lists decide what the caller may see."""
        return self.permissions.restrict_reads_of(self.identity)

    async def check(self, request: Request) -> None:
        """Checks that the caller may view a request, also with the plugin.

        Args:
            request: The request with its args.

        Raises:
            PermissionDeniedError: The caller may not. Reason: ACCESS_DENIED.
        """
        if self.is_restricted:
            await self.permissions.check(self.identity.caller, VIEW, request)

    def check_type(self, request_type: str) -> None:
        """Checks by the lists alone that the caller may view requests of a type.

        Raises:
            PermissionDeniedError: The caller may not. Reason: ACCESS_DENIED.
        """
        if self.is_restricted:
            self.permissions.check_type(self.identity.caller, VIEW, request_type)

    def may_view(self, request_type: str) -> bool:
        """Whether the caller may view requests of a type."""
        return self.permissions.may_read(self.identity, VIEW, request_type)

    def visible_types(self) -> VisibleTypes:
        """Returns the types of requests that the caller may view."""
        return self.permissions.visible_types(self.identity)

    def may_see_log(self, request_type: str) -> bool:
        """Whether the caller may see the job logs of requests of a type."""
        return self.permissions.may_read(self.identity, LOG, request_type)
