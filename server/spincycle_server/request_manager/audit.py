"""The audit log of a Request Manager: makes the events of calls, and lists events.

The event of a call with an effect is stored in the transaction of the effect. Denials are collected, grouped
and stored in the background, so that a flood of them does not slow down the database.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

import structlog

from spincycle_grpc.errors import FailedPreconditionError, PermissionDeniedError, SpinCycleError
from spincycle_grpc.v1.audit_pb2 import AuditEvent, AuditFilter
from spincycle_grpc.v1.request_manager_pb2 import ListAuditEventsResponse
from spincycle_server.identity.access import denial_message
from spincycle_server.request_manager.audit_denials import Denials
from spincycle_server.store.audit import OK, effect_row

if TYPE_CHECKING:
    from spincycle_grpc.auth import Caller
    from spincycle_server.rpc import CallContext
    from spincycle_server.store import Store
    from spincycle_server.store.audit import EventRow

logger = structlog.get_logger(__name__)

FLUSH_INTERVAL = 1.0
"""Seconds between two writes of denials."""

_PACKAGE = "spincycle.v1."
_LONGEST_TEXT = 1000
"""Characters of a text that are kept in memory until the event is stored."""


class AuditLog:
    """The audit log. It is off if users are not authenticated, because then nobody knows who calls.

    Args:
        store: Where events are stored.
        is_on: Whether users are authenticated.
        admin_roles: The roles that may see all events.

    Attributes:
        is_on: Whether users are authenticated.
        is_failing: Whether the newest denials could not be stored.
        failed_writes: The number of times that denials could not be stored. They are kept and tried again.
    """

    def __init__(self, store: Store, *, is_on: bool, admin_roles: Collection[str] = ()) -> None:
        self._store = store
        self.is_on = is_on
        store.is_audited = is_on  # Some changes come from no call: a sequence stops another request.
        self._admin_roles = frozenset(admin_roles)
        self._denials = Denials()
        self.limits = self._denials.limits
        self.is_failing = False
        self.failed_writes = 0

    def event(
        self, context: CallContext, operation: str, request_id: str, request_type: str
    ) -> EventRow | None:
        """Returns the row of the event of a call that changes a request; None if the log is off.

        Args:
            context: The call.
            operation: The service and the method: "RequestManager.Create".
            request_id: The request.
            request_type: Its type.
        """
        if not self.is_on:
            return None
        return effect_row(
            user=_text(context.identity.caller.name),
            auth_method=context.identity.method,
            peer=host_of(context.credentials.peer),
            transport=context.transport,
            operation=operation,
            request_id=request_id,
            request_type=request_type,
        )

    def add_denial(self, method: str, context: CallContext, error: SpinCycleError, request: object) -> None:
        """Adds a denied call. It is stored in the background. Never raises.

        Args:
            method: The full name of the method.
            context: The call.
            error: The error that the caller gets.
            request: The request message; None if it was not read.
        """
        if not self.is_on:
            return
        try:
            event = _event_of(context, method.removeprefix(_PACKAGE))
            event.request_id = _text(error.request_id or getattr(request, "request_id", ""))
            event.request_type = _text(getattr(request, "type", ""))
            event.outcome = _text(error.reason)
            event.detail = _text(error.message)
            self._denials.add(event, time.monotonic())
        except Exception as failure:
            self.failed_writes += 1
            logger.error("denial not recorded", method=method, exc_info=failure)

    async def record(self, context: CallContext, operation: str) -> None:
        """Records something that a user has done, and that changes nothing in the database.

        Args:
            context: The call.
            operation: What was done: "Web.SignIn".

        Raises:
            UnavailableError: The database does not answer.
        """
        if not self.is_on:
            return
        event = _event_of(context, operation)
        event.outcome = OK
        await self._store.record_events([event])

    async def run(self) -> None:
        """Stores denials until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL)
            await self._store_denials(self._denials.take(time.monotonic()))

    async def close(self) -> None:
        """Stores all denials that are left."""
        await self._store_denials(self._denials.take_all())
        lost = sum(event.count for event in self._denials.take_all())
        if lost:
            logger.error("denials lost: they could not be recorded before the end", denials=lost)

    async def _store_denials(self, events: list[AuditEvent]) -> None:
        if not events:
            return
        try:
            await self._store.record_events(events)
        except SpinCycleError as error:
            self._denials.put_back(events, time.monotonic())
            self.failed_writes += 1
            if not self.is_failing:
                logger.error("denials not recorded: trying again", error=str(error), reason=error.reason)
            self.is_failing = True
        else:
            if self.is_failing:
                logger.info("denials recorded again")
            self.is_failing = False

    def is_admin(self, caller: Caller) -> bool:
        """Whether a caller may see all events."""
        return not self._admin_roles.isdisjoint(caller.roles)

    def check(self, caller: Caller, wanted: AuditFilter) -> None:
        """Checks that a caller may list events, if the caller may view the request of the filter.

        Raises:
            FailedPreconditionError: There is no audit log. Reason: AUDIT_OFF.
            PermissionDeniedError: The caller is not an administrator, and the filter has no request. Reason:
                ACCESS_DENIED.
        """
        if not self.is_on:
            raise FailedPreconditionError(
                "there is no audit log, because users are not authenticated: "
                "turn on a method of authentication, as docs/access.md describes",
                reason="AUDIT_OFF",
            )
        if not wanted.request_id and not self.is_admin(caller):
            action = "see the events of all requests (set request_id to see those of one)"
            raise PermissionDeniedError(
                denial_message(caller, action, self._admin_roles), reason="ACCESS_DENIED"
            )

    async def list(self, caller: Caller, wanted: AuditFilter) -> ListAuditEventsResponse:
        """Returns a page of events. Only administrators see the hosts of callers.

        Raises:
            SpinCycleError: As `Store.list_audit_events`.
        """
        page = await self._store.list_audit_events(wanted)
        if not self.is_admin(caller):
            for event in page.events:
                event.peer = ""
        return ListAuditEventsResponse(events=page.events, next_page_token=page.next_token)


@lru_cache(maxsize=1024)  # The calls of one connection have the same peer.
def host_of(peer: str) -> str:
    """Returns the host of a caller's address, as gRPC or HTTP gives it; "unix" for a unix socket."""
    text = unquote(peer)
    if text.startswith("unix:"):
        return "unix"
    host = text.removeprefix("ipv4:").removeprefix("ipv6:").rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    # A socket for both IP versions shows the addresses of IPv4 callers as IPv6.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _event_of(context: CallContext, operation: str) -> AuditEvent:
    event = AuditEvent(
        user=_text(context.caller.name),
        auth_method=context.identity.method,
        peer=host_of(context.peer),
        transport=context.transport,
        operation=operation,
        count=1,
    )
    event.occurred_at.FromMicroseconds(time.time_ns() // 1000)  # The database stores microseconds.
    return event


def _text(text: str) -> str:
    """Returns a text that is short enough to keep, and that a message accepts."""
    if text.isascii():
        return text[:_LONGEST_TEXT]
    return text[:_LONGEST_TEXT].encode(errors="replace").decode()
