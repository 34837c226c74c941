"""Groups denials, so that a flood of them costs few rows and little memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from spincycle_grpc.v1.audit_pb2 import AuditEvent
from spincycle_server.telemetry.limits import DENIALS, LimitUse

WINDOW = 60.0
"""Seconds in which similar denials share one event. The first one does not wait for the others."""

MAX_GROUPS = 200
"""The maximum number of groups by caller. The denials of further callers are grouped by operation alone."""

_Key: TypeAlias = tuple[str, ...]


@dataclass(slots=True)
class _Group:
    """Similar denials.

    Attributes:
        due: The time at which the next event may be taken.
        event: The denials since the last event was taken; None without any.
    """

    due: float
    event: AuditEvent | None = None


class Denials:
    """Collects denials, and gives them back as few events.

    Denials with the same caller, host, operation and reason are similar. The first one is due at once, with
    those that come before `take` is called. The following ones of the next `WINDOW` seconds are due together
    at its end. An event has the number of its denials.

    Times are seconds of any clock that does not go back.
    """

    def __init__(self) -> None:
        self._groups: dict[_Key, _Group] = {}

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limit and the number of groups."""
        return (LimitUse(DENIALS, MAX_GROUPS, len(self._groups)),)

    def add(self, event: AuditEvent, now: float) -> None:
        """Adds a denial. The event may be changed later."""
        self._add(event, now)

    def _add(self, event: AuditEvent, now: float) -> _Group:
        key = _key(event)
        if key not in self._groups and len(self._groups) >= MAX_GROUPS:
            event = _of_any_caller(event)
            key = _key(event)
        group = self._groups.setdefault(key, _Group(now))
        if group.event is None:
            group.event = event
        else:
            _merge(group.event, event)
        return group

    def take(self, now: float) -> list[AuditEvent]:
        """Returns the events that are due, and forgets groups without a denial for `WINDOW` seconds."""
        taken: list[AuditEvent] = []
        for key, group in list(self._groups.items()):
            if group.due > now:
                continue
            if group.event is None:
                del self._groups[key]
                continue
            taken.append(group.event)
            group.event = None
            group.due = now + WINDOW
        return taken

    def take_all(self) -> list[AuditEvent]:
        """Returns all events, due or not."""
        groups, self._groups = self._groups, {}
        return [group.event for group in groups.values() if group.event is not None]

    def put_back(self, events: Iterable[AuditEvent], now: float) -> None:
        """Adds events that could not be stored. Each is due at once."""
        for event in events:
            self._add(event, now).due = now


def _key(event: AuditEvent) -> _Key:
    return (event.user, event.auth_method, event.peer, event.transport, event.operation, event.outcome)


def _of_any_caller(event: AuditEvent) -> AuditEvent:
    """Returns the event without its caller and reason: callers may make any number of these."""
    return AuditEvent(
        occurred_at=event.occurred_at,
        transport=event.transport,
        operation=event.operation,
        outcome="DENIED",
        count=event.count,
        detail=f"calls of further callers, after those of {MAX_GROUPS} callers in a minute",
    )


def _merge(event: AuditEvent, other: AuditEvent) -> None:
    """Adds similar denials to an event. A request that they do not share is left out."""
    if other.occurred_at.ToNanoseconds() < event.occurred_at.ToNanoseconds():
        event.occurred_at.CopyFrom(other.occurred_at)
        event.detail = other.detail
    event.count += other.count
    if other.request_id != event.request_id:
        event.request_id = ""
    if other.request_type != event.request_type:
        event.request_type = ""
