"""Lists deliveries, newest first, in pages that later events do not shift.

A page token is the position of the last delivery of a page: its time, its event and its target.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.v1.notification_pb2 import DELIVERY_STATE_WAITING, Delivery, DeliveryFilter
from spincycle_server.store.ended_statements import explained_ends
from spincycle_server.store.pages import PageRoom
from spincycle_server.store.rows import set_microseconds
from spincycle_server.store.schema import MAX_TARGET, deliveries

DEFAULT_PAGE = 100
"""The maximum number of deliveries in a page whose filter has no limit."""

MAX_PAGE = 1000
"""The maximum number of deliveries in a page."""

_NOT_FOUND = "the database took too long to find the deliveries: filter them by target or request"
_TOKEN = re.compile(rf"([0-9]{{1,18}})-([0-9a-f]{{20}})-([0-9a-z-]{{1,{MAX_TARGET}}})")
_ORDER = (deliveries.c.occurred_at, deliveries.c.event_id, deliveries.c.target)


class DeliveryPage(NamedTuple):
    """Deliveries, and the token of the next page; "" if there are no more."""

    deliveries: list[Delivery]
    next_token: str


def list_deliveries(
    connection: Connection, wanted: DeliveryFilter, *, statement_limit: float | None = None
) -> DeliveryPage:
    """Returns a page of the deliveries that match a filter, newest first.

    Args:
        connection: An open connection.
        wanted: The filter.
        statement_limit: Seconds after which MariaDB and MySQL end the statement; None for their own limit.

    Raises:
        InvalidArgumentError: The page token is invalid. Reason: BAD_FILTER.
        DeadlineExceededError: The statement took too long. Reason: FIND_TOO_SLOW.
    """
    size = min(wanted.limit or DEFAULT_PAGE, MAX_PAGE)
    query = select(deliveries).where(*_conditions(wanted))
    query = query.order_by(*(column.desc() for column in _ORDER)).limit(size + 1)
    with explained_ends(_NOT_FOUND):
        rows = connection.execution_options(statement_limit=statement_limit).execute(query).all()
    room = PageRoom(size)
    found: list[Delivery] = []
    for row in rows:
        delivery = _delivery_of(row)
        if not room.take(delivery.ByteSize()):
            last = rows[len(found) - 1]
            return DeliveryPage(found, f"{last.occurred_at}-{last.event_id}-{last.target}")
        found.append(delivery)
    return DeliveryPage(found, "")


def _conditions(wanted: DeliveryFilter) -> list[ColumnElement[bool]]:
    columns = deliveries.c
    conditions: list[ColumnElement[bool]] = []
    for column, text in (
        (columns.request_id, wanted.request_id),
        (columns.target, wanted.target),
        (columns.event_id, wanted.event_id),
    ):
        if text:
            # A text of another form has no deliveries, and some databases cannot compare it with the column.
            conditions.append(column == (text if text.isascii() and text.isprintable() else ""))
    if wanted.state:
        conditions.append(columns.delivery_state == wanted.state)
    if wanted.page_token:
        conditions.append(_is_before(wanted.page_token))
    return conditions


def _is_before(token: str) -> ColumnElement[bool]:
    """The condition of older deliveries, in a form for which all databases use an index."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise InvalidArgumentError(
            "invalid 'pageToken' parameter: send the nextPageToken of the previous response unchanged",
            reason="BAD_FILTER",
        )
    time, event_id, target = _ORDER
    same_event = and_(event_id == match[2], target < match[3])
    older = or_(time < int(match[1]), event_id < match[2], same_event)
    return and_(time <= int(match[1]), older)


def _delivery_of(row: Any) -> Delivery:
    delivery = Delivery(
        event_id=row.event_id,
        target=row.target,
        event=row.event,
        request_id=row.request_id or "",
        request_type=row.request_type,
        state=row.delivery_state,
        attempts=row.attempts,
        last_error=row.last_error,
    )
    set_microseconds(delivery.occurred_at, row.occurred_at)
    if row.delivery_state == DELIVERY_STATE_WAITING and row.next_attempt_at:
        set_microseconds(delivery.next_attempt_at, row.next_attempt_at)
    if row.ended_at is not None:
        set_microseconds(delivery.ended_at, row.ended_at)
    return delivery
