"""The permissions of identified callers: the access lists decide first, then the plugin."""

from __future__ import annotations

from typing import Protocol

from spincycle_grpc.auth import Caller
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.identity.access import ALL_TYPES, LOG, START, VIEW, AccessLists, VisibleTypes
from spincycle_server.identity.identity import Identity
from spincycle_server.specs.model import OPERATIONS


class SecondCheck(Protocol):
    """Decides about one request, after the access lists have allowed the operation."""

    async def authorize(self, caller: Caller, operation: str, request: Request) -> None:
        """Checks that a caller may do an operation with a request.

        Raises:
            SpinCycleError: The caller may not, or the check failed.
        """
        ...


class Permissions:
    """Decides what callers may do.

    Args:
        lists: The access lists.
        second_check: Decides after the lists; None to leave it to the lists alone.
        reads_follow_lists: Whether the lists also decide who may read. Otherwise every caller may read.
    """

    def __init__(
        self,
        lists: AccessLists,
        second_check: SecondCheck | None = None,
        *,
        reads_follow_lists: bool = False,
    ) -> None:
        self._lists = lists
        self._second_check = second_check
        self._reads_follow_lists = reads_follow_lists

    def use(self, lists: AccessLists) -> None:
        """Uses other access lists from now on."""
        self._lists = lists

    @property
    def need_args(self) -> bool:
        """Whether a decision depends on the args of a request."""
        return self._second_check is not None

    def check_type(self, caller: Caller, operation: str, request_type: str) -> None:
        """Checks by the lists alone that a caller may do an operation with requests of a type.

        Raises:
            PermissionDeniedError: The caller may not. Reason: ACCESS_DENIED.
        """
        self._lists.check(caller, operation, request_type)

    async def check(self, caller: Caller, operation: str, request: Request) -> None:
        """Checks that a caller may do an operation with a request.

        Args:
            caller: The caller, with its roles.
            operation: START, STOP, VIEW, LOG, RETRY or PAUSE.
            request: The request with its args, without its job chain. Its id is "" before it is created.

        Raises:
            PermissionDeniedError: The caller may not. Reason: ACCESS_DENIED.
            SpinCycleError: The plugin refused the operation, or failed.
        """
        self._lists.check(caller, operation, request.type, request.id)
        if self._second_check is not None:
            await self._second_check.authorize(caller, operation, request)

    def restrict_reads_of(self, identity: Identity) -> bool:
        """Whether the lists decide what a caller may read. Other servers may read everything."""
        return self._reads_follow_lists and identity.method != "cluster"

    def visible_types(self, identity: Identity) -> VisibleTypes:
        """Returns the types of requests that a caller may view."""
        return self._lists.visible_types(identity.caller) if self.restrict_reads_of(identity) else ALL_TYPES

    def may_read(self, identity: Identity, operation: str, request_type: str) -> bool:
        """Whether the lists let a caller do a reading operation, VIEW or LOG, with requests of a type."""
        return not self.restrict_reads_of(identity) or self._lists.allow(
            identity.caller, operation, request_type
        )

    def operations(self, identity: Identity, request_type: str) -> list[str]:
        """Returns the operations that the lists let a caller do with requests of a type."""
        return [
            operation
            for operation in OPERATIONS
            if (operation in (VIEW, LOG) and not self.restrict_reads_of(identity))
            or self._lists.allow(identity.caller, operation, request_type)
        ]

    def is_listed(self, identity: Identity, request_type: str) -> bool:
        """Whether a caller may see a type in the list of types, because of VIEW or START."""
        return not self.restrict_reads_of(identity) or any(
            self._lists.allow(identity.caller, operation, request_type) for operation in (VIEW, START)
        )
