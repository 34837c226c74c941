"""Lists the events of the audit log, in pages that later events do not shift.

A page token is the position of the last event of a page: its time and its id. Events are ordered by both, so
the next page starts behind that position, whatever has been added meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.v1.audit_pb2 import AuditEvent, AuditFilter
from spincycle_server.store.audit import event_of, is_id
from spincycle_server.store.ended_statements import explained_ends
from spincycle_server.store.pages import PageRoom
from spincycle_server.store.rows import microseconds_of
from spincycle_server.store.schema import MAX_AUDIT_NAME, audit_events

DEFAULT_PAGE = 100
"""The maximum number of events in a page whose filter has no limit."""

MAX_PAGE = 1000
"""The maximum number of events in a page."""

_NOT_FOUND = "the database took too long to find the events, so the search was stopped: narrow the filter"
_TOKEN = re.compile("([0-9]{1,18})-([0-9a-f]{20})")
_LATEST = 253_402_300_799_999_999


class Position(NamedTuple):
    """The place of an event in the log."""

    occurred_at: int
    event_id: str


class EventPage(NamedTuple):
    """Events, and the token of the next page; "" if there are no more events."""

    events: list[AuditEvent]
    next_token: str


def list_events(
    connection: Connection, wanted: AuditFilter, *, statement_limit: float | None = None
) -> EventPage:
    """Returns a page of the events that match a filter, newest first.

    Args:
        connection: An open connection.
        wanted: The filter.
        statement_limit: Seconds after which MariaDB and MySQL end the statement; None for their own limit.

    Raises:
        InvalidArgumentError: A time or the page token is invalid. Reason: BAD_FILTER.
        DeadlineExceededError: The statement took too long. Reason: FIND_TOO_SLOW.
    """
    size = min(wanted.limit or DEFAULT_PAGE, MAX_PAGE)
    behind = _position_of(wanted.page_token) if wanted.page_token else None
    query = _matching(connection, wanted)
    if behind is not None:
        query = query.where(_is_before(behind))
    query = query.order_by(audit_events.c.occurred_at.desc(), audit_events.c.event_id.desc()).limit(size + 1)
    with explained_ends(_NOT_FOUND):
        rows = connection.execution_options(statement_limit=statement_limit).execute(query).all()
    room = PageRoom(size)
    events: list[AuditEvent] = []
    for row in rows:
        event = event_of(row)
        if not room.take(event.ByteSize()):
            last = rows[len(events) - 1]
            return EventPage(events, f"{last.occurred_at}-{last.event_id}")
        events.append(event)
    return EventPage(events, "")


def next_events(
    connection: Connection, wanted: AuditFilter, after: Position | None, size: int
) -> tuple[list[AuditEvent], Position | None]:
    """Returns the oldest matching events behind a position, oldest first, and the last one's position.

    Args:
        connection: An open connection.
        wanted: The filter. Its limit and page token are ignored.
        after: The position; None for the start of the log.
        size: The maximum number of events.

    Raises:
        InvalidArgumentError: A time is invalid. Reason: BAD_FILTER.
    """
    query = _matching(connection, wanted)
    if after is not None:
        query = query.where(_is_after(after))
    rows = connection.execute(
        query.order_by(audit_events.c.occurred_at, audit_events.c.event_id).limit(size)
    ).all()
    last = Position(rows[-1].occurred_at, rows[-1].event_id) if rows else None
    return [event_of(row) for row in rows], last


def _matching(connection: Connection, wanted: AuditFilter) -> Any:
    return select(audit_events).where(*_conditions(connection, wanted))


def _conditions(connection: Connection, wanted: AuditFilter) -> Iterator[ColumnElement[bool]]:
    columns = audit_events.c
    if wanted.HasField("since"):
        yield columns.occurred_at >= _microseconds(wanted.since, "since")
    if wanted.HasField("until"):
        yield columns.occurred_at < _microseconds(wanted.until, "until")
    if wanted.request_id:
        # An id of another form has no events, and some databases cannot compare it with the column.
        yield columns.request_id == (wanted.request_id if is_id(wanted.request_id) else "")
    for column, text in (
        (columns.user, wanted.user[:MAX_AUDIT_NAME]),
        (columns.operation, wanted.operation),
        (columns.outcome, wanted.outcome),
    ):
        if text:
            yield column == text
            if connection.dialect.name == "mysql":  # MySQL ignores trailing spaces.
                yield func.char_length(column) == len(text)


def _is_before(position: Position) -> ColumnElement[bool]:
    """The condition of older events, in a form for which all databases use an index."""
    time, event_id = audit_events.c.occurred_at, audit_events.c.event_id
    older = or_(time < position.occurred_at, event_id < position.event_id)
    return and_(time <= position.occurred_at, older)


def _is_after(position: Position) -> ColumnElement[bool]:
    time, event_id = audit_events.c.occurred_at, audit_events.c.event_id
    newer = or_(time > position.occurred_at, event_id > position.event_id)
    return and_(time >= position.occurred_at, newer)


def _position_of(token: str) -> Position:
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise InvalidArgumentError(
            "invalid 'pageToken' parameter: send the nextPageToken of the previous response unchanged",
            reason="BAD_FILTER",
        )
    return Position(int(match[1]), match[2])


def _microseconds(time: Timestamp, name: str) -> int:
    """Returns a time in microseconds, rounded up: all stored times are whole microseconds."""
    if not (-62_135_596_800 <= time.seconds <= 253_402_300_799 and 0 <= time.nanos < 1_000_000_000):
        raise InvalidArgumentError(
            f"invalid '{name}' parameter: must be a time in the years 1 to 9999", reason="BAD_FILTER"
        )
    return min(max(microseconds_of(time) + (time.nanos % 1000 > 0), 0), _LATEST)
