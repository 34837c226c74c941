"""Deliveries: an event that targets want is stored in the transaction that causes it.

Whatever ends a request announces the end as an event of the transaction. Before the commit, each event that a
target wants becomes a row, which is sent with the other changes. So an event costs no round trip, and none is
lost or sent for a change that was not committed. Without targets, it looks at no event.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from sqlalchemy import insert

from spincycle_grpc.state import State
from spincycle_grpc.v1.notification_pb2 import DELIVERY_STATE_WAITING
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store.audit import new_event_id
from spincycle_server.store.schema import deliveries
from spincycle_server.telemetry.requests import RequestEnded

COMPLETED = "completed"
FAILED = "failed"
STOPPED = "stopped"
APPROVAL_WANTED = "approval-wanted"
TEST = "test"

_EVENT_OF_END = MappingProxyType(
    {State.COMPLETE.name: COMPLETED, State.FAIL.name: FAILED, State.STOPPED.name: STOPPED}
)

INSERT_DELIVERY = RowStatement(lambda _: insert(deliveries))


class Occurrence(NamedTuple):
    """Something that happened to a request, of which targets may want to know.

    Attributes:
        event: COMPLETED, FAILED, STOPPED, APPROVAL_WANTED or TEST.
        request_type: The type of the request; "" without a request.
        request_id: The request; None without a request.
        state: Its state since then.
        occurred_at: When it happened, in microseconds since the Unix epoch.
        detail: What the rows of the request do not say: a NotifiedApproval as JSON; None if there is nothing.
    """

    event: str
    request_type: str
    request_id: str | None
    state: int
    occurred_at: int
    detail: bytes | None = None


class Subscriptions(Protocol):
    """Says which targets want an event. It is asked in the threads of writers."""

    def wanted_by(self, event: str, request_type: str) -> Sequence[str]:
        """Returns the names of the targets."""


def wanted_occurrences(
    events: Iterable[Any], subscriptions: Subscriptions
) -> Iterable[tuple[Occurrence, Sequence[str]]]:
    """Yields what a transaction has done that targets want to know, with the names of these targets."""
    for event in events:
        occurrence = _occurrence_of(event)
        if occurrence is not None:
            targets = subscriptions.wanted_by(occurrence.event, occurrence.request_type)
            if targets:
                yield occurrence, targets


def _occurrence_of(event: Any) -> Occurrence | None:
    if isinstance(event, Occurrence):
        return event
    if isinstance(event, RequestEnded):
        name = _EVENT_OF_END[event.outcome]
        state = State[event.outcome]
        return Occurrence(name, event.request_type, event.request_id, state, event.ended_at)
    return None


def delivery_rows(occurrence: Occurrence, targets: Iterable[str]) -> Iterable[dict[str, Any]]:
    """Yields the row of each target. The rows have the same new event id."""
    event_id = new_event_id()
    # The order of due times includes deliveries that are tried again: at 0, new ones would always be before
    # them. The time is not in the future, although the clock of a runner can be ahead.
    due_at = min(occurrence.occurred_at, time.time_ns() // 1000)
    for target in targets:
        yield {
            "event_id": event_id,
            "target": target,
            "event": occurrence.event,
            "request_id": occurrence.request_id,
            "request_type": occurrence.request_type,
            "request_state": occurrence.state,
            "detail": occurrence.detail,
            "occurred_at": occurrence.occurred_at,
            "delivery_state": DELIVERY_STATE_WAITING,
            "attempts": 0,
            "next_attempt_at": due_at,
            "ended_at": None,
            "last_error": "",
            "redelivered_at": None,
        }


def adder_of(subscriptions: Subscriptions) -> Callable[[Transaction], None]:
    """Returns the function that adds the deliveries of a transaction to its changes."""

    def add(transaction: Transaction) -> None:
        if transaction.events:
            rows = [
                row
                for occurrence, targets in wanted_occurrences(transaction.events, subscriptions)
                for row in delivery_rows(occurrence, targets)
            ]
            transaction.change(INSERT_DELIVERY, rows)

    return add
