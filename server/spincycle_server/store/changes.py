"""Reads the changes of requests between two positions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, and_, func, literal, literal_column, or_, select, tuple_
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.database.chunks import IDS_AT_ONCE, in_chunks
from spincycle_server.database.keyed_read import KeyedRead
from spincycle_server.database.troubles import was_ended
from spincycle_server.store.positions import Position, Span, read_position
from spincycle_server.store.report_order import ReportPlace, in_report_order
from spincycle_server.store.rows import entry_without_output, marked_request_of
from spincycle_server.store.schema import deleted_requests, job_log, request_args, requests

MAX_FEW = 500
"""The maximum number of tries that one statement reads for several streams that begin."""

MAX_ROWS = 20_000
"""The maximum number of rows that one read returns. If there are more, the answer says so."""

_ZERO: ColumnElement[int] = literal_column("0", BigInteger)
_EPOCH = func.coalesce(job_log.c.epoch, _ZERO)
# Tries without an ordinal were recorded by an original's runner. They are sorted by time.
_ORDINAL = func.coalesce(job_log.c.ordinal, job_log.c.finished_at, _ZERO)

_TRY_COLUMNS = (
    job_log.c.request_id,
    job_log.c.job_id,
    job_log.c["try"].label("number"),
    job_log.c.name,
    job_log.c.type,
    job_log.c.started_at,
    job_log.c.finished_at,
    job_log.c.state,
    job_log.c.exit,
    job_log.c.error,
    job_log.c.path,
    job_log.c.change_stamp,
    _EPOCH.label("of_epoch"),
    _ORDINAL.label("in_epoch"),
)
_TRY_KEY = (job_log.c.request_id, _EPOCH, _ORDINAL, job_log.c.job_id, job_log.c["try"])


class TryKey(NamedTuple):
    """The place of a finished try among others: tries of a request are in the order of their reports.

    Attributes:
        request_id: The request.
        epoch: The assignment in which it ran; 0 if it had none.
        ordinal: Its place in the assignment; without assignment, when it finished.
        job_id: Its job.
        number: Its number among the job's tries.
    """

    request_id: str
    epoch: int
    ordinal: int
    job_id: str
    number: int


class Try(NamedTuple):
    """A finished try.

    Attributes:
        key: Its place.
        entry: Its entry in the job log, without stdout and stderr.
        stamp: The stamp of the transaction that stored it, if it has one.
    """

    key: TryKey
    entry: JobLog
    stamp: int | None


class StampedRequest(NamedTuple):
    """A request without args and job chain.

    Attributes:
        request: The request.
        stamp: The stamp of its last change, if it has one.
    """

    request: Request
    stamp: int | None


class DeletedRequest(NamedTuple):
    """A request that was deleted by its age."""

    request_id: str
    type: str
    user: str


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes up to a position.

    Attributes:
        position: The position.
        requests: The requests that have changed or have finished tries, by id. A request whose state has
            changed again since the position is missing.
        tries: The tries that have finished, in order.
        others: Further requests with finished tries, by id.
        deleted: The requests that were deleted.
        args: The args that were asked for, by request and name.
        is_complete: Whether these are all changes. Otherwise there are too many.
    """

    position: Position
    requests: Mapping[str, Request] = field(default_factory=dict)
    tries: Sequence[Try] = ()
    others: Mapping[str, Request] = field(default_factory=dict)
    deleted: Sequence[DeletedRequest] = ()
    args: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    is_complete: bool = True


def read_changes(
    connection: Connection,
    earlier: Position | None,
    request_ids: Collection[str] | None,
    arg_names: Collection[str] = (),
) -> Changes:
    """Reads what has changed since a position.

    Args:
        connection: An open connection.
        earlier: The position; None to read only the position now.
        request_ids: The requests to read; None for all. If there are many, more are read.
        arg_names: The names of the args to read too.
    """
    position = read_position(connection)
    spans = [] if earlier is None else position.spans_since(earlier)
    if not spans or earlier is None:
        return Changes(position)
    # The database finds the rows by stamp. The ids only spare it to send rows that nobody watches.
    ids = None if request_ids is None or len(request_ids) > IDS_AT_ONCE else list(request_ids)
    rows = connection.execute(select(requests).where(*_among(requests, spans, ids)).limit(MAX_ROWS + 1)).all()
    tries = connection.execute(
        select(*_TRY_COLUMNS).where(*_among(job_log, spans, ids)).limit(MAX_ROWS + 1)
    ).all()
    deleted = deleted_in(connection, spans) if position.deletes_since(earlier) else []
    if max(len(rows), len(tries), len(deleted)) > MAX_ROWS:
        return Changes(position, is_complete=False)
    changed = {row.request_id: marked_request_of(row) for row in rows}
    others: dict[str, Request] = {}
    missing = {row.request_id for row in tries} - changed.keys()
    for request_id, (request, stamp) in stamped_requests(connection, missing).items():
        (changed if position.has(stamp) else others)[request_id] = request
    args = args_of(connection, changed.keys() | others.keys(), arg_names) if arg_names else {}
    in_order = sorted(map(_try_of, tries), key=lambda one: one.key)
    return Changes(position, changed, in_order, others, deleted, args)


def tries_after(
    connection: Connection,
    request_ids: Sequence[str],
    spans: Sequence[Span] | None,
    last: TryKey | None,
    limit: int,
) -> list[Try]:
    """Returns finished tries of some requests, in order.

    Args:
        connection: An open connection.
        request_ids: The requests, at most IDS_AT_ONCE.
        spans: The stamps of the tries; None for all.
        last: Only tries that come after this one; None for all.
        limit: The maximum number of tries.
    """
    if len(request_ids) == 1:
        return _tries_of(connection, request_ids[0], spans, last, limit)
    conditions: list[ColumnElement[bool]] = [job_log.c.request_id.in_(request_ids)]
    if spans is not None:
        conditions.append(_stamped(job_log, spans))
    if last is not None:
        conditions.append(tuple_(*_TRY_KEY) > tuple_(*_literals(last)))
    query = select(*_TRY_COLUMNS).where(*conditions).order_by(*_TRY_KEY).limit(limit)
    return [_try_of(row) for row in connection.execute(query)]


def _tries_of(
    connection: Connection, request_id: str, spans: Sequence[Span] | None, last: TryKey | None, limit: int
) -> list[Try]:
    """Returns tries of one request, through the index of reports, so that no page reads what others had."""
    if last is not None and last.request_id != request_id:
        if last.request_id > request_id:
            return []
        last = None
    query = select(*_TRY_COLUMNS).where(job_log.c.request_id == request_id)
    if spans is not None:
        query = query.where(_stamped(job_log, spans))
    behind = None if last is None else ReportPlace(*last[1:])
    return [_try_of(row) for row in in_report_order(connection, query, behind, limit)]


# Without an offset, SQLite's statement would have one as a parameter.
_FEW = select(*_TRY_COLUMNS).limit(literal_column(str(MAX_FEW + 1))).offset(literal_column("0"))
_FEW_TRIES = KeyedRead(lambda _: _FEW, job_log.c.request_id)
_STAMPED = KeyedRead(lambda _: select(requests), requests.c.request_id)


def few_tries(connection: Connection, request_ids: Sequence[str]) -> dict[str, list[Try]]:
    """Returns the finished tries of some requests, in order, by request. Nobody may change them.

    If all of them together have more than MAX_FEW, it returns an empty dictionary.
    """
    rows = _FEW_TRIES.read(connection, request_ids)
    if len(rows) > MAX_FEW:
        return {}
    found: dict[str, list[Try]] = {request_id: [] for request_id in request_ids}
    for one in sorted(map(_try_of, rows), key=lambda one: one.key):
        found[one.key.request_id].append(one)
    return found


def stamped_rows(connection: Connection, request_ids: Sequence[str]) -> dict[str, Any]:
    """Returns the rows of requests for `stamped_request_of`, by id."""
    return {row.request_id: row for row in _STAMPED.read(connection, request_ids)}


def stamped_request_of(row: Any) -> StampedRequest:
    """Returns the request of a row, which the caller may change."""
    return StampedRequest(marked_request_of(row), row.change_stamp)


def stamped_requests(connection: Connection, request_ids: Collection[str]) -> dict[str, StampedRequest]:
    """Returns the requests with the given ids that exist, by id."""
    found: dict[str, StampedRequest] = {}
    for some in in_chunks(sorted(request_ids)):
        for request_id, row in stamped_rows(connection, some).items():
            found[request_id] = stamped_request_of(row)
    return found


def changed_ids(
    connection: Connection, earlier: Position, limit: int, *, statement_limit: float | None = None
) -> list[str] | None:
    """Returns the ids of the requests that have changed or have finished tries since a position, sorted.

    Args:
        connection: An open connection.
        earlier: The position.
        limit: The maximum number of requests.
        statement_limit: Seconds after which MariaDB and MySQL end a statement; None for their own limit.

    Returns:
        The ids, also of requests that changed again later; None if there are more than `limit`, or if the
        database took too long to find them.
    """
    connection = connection.execution_options(statement_limit=statement_limit)
    try:
        return _changed_ids(connection, earlier, limit)
    except DBAPIError as error:
        if was_ended(error):
            return None
        raise


def _changed_ids(connection: Connection, earlier: Position, limit: int) -> list[str] | None:
    spans = read_position(connection).spans_since(earlier)
    if not spans:
        return []
    found: set[str] = set()
    for table in (requests, job_log):
        query = select(table.c.request_id).where(_stamped(table, spans)).distinct().limit(limit + 1)
        found.update(connection.scalars(query))
        if len(found) > limit:
            return None
    return sorted(found)


def deleted_in(
    connection: Connection, spans: Sequence[Span], after: str = "", limit: int = MAX_ROWS + 1
) -> list[DeletedRequest]:
    """Returns the requests that were deleted by transactions with some stamps, sorted by id.

    Args:
        connection: An open connection.
        spans: The stamps.
        after: Only requests with larger ids.
        limit: The maximum number of requests.
    """
    query = (
        select(deleted_requests)
        .where(_stamped(deleted_requests, spans), deleted_requests.c.request_id > after)
        .order_by(deleted_requests.c.request_id)
        .limit(limit)
    )
    return [DeletedRequest(row.request_id, row.type, row.user or "") for row in connection.execute(query)]


def args_of(
    connection: Connection, request_ids: Collection[str], names: Collection[str]
) -> dict[str, dict[str, str]]:
    """Returns the text of some args of requests, by request and name, as finds compare them."""
    found: dict[str, dict[str, str]] = {}
    for some in in_chunks(sorted(request_ids)):
        query = select(request_args.c.request_id, request_args.c.name, request_args.c.value).where(
            request_args.c.request_id.in_(some), request_args.c.name.in_(sorted(names))
        )
        for row in connection.execute(query):
            found.setdefault(row.request_id, {})[row.name] = row.value
    return found


def _among(table: Any, spans: Sequence[Span], ids: Sequence[str] | None) -> list[ColumnElement[bool]]:
    conditions = [_stamped(table, spans)]
    if ids is not None:
        conditions.append(table.c.request_id.in_(ids))
    return conditions


def _stamped(table: Any, spans: Sequence[Span]) -> ColumnElement[bool]:
    stamp = table.c.change_stamp
    return or_(*(and_(stamp > after, stamp <= last) for after, last in spans))


def _literals(key: TryKey) -> list[ColumnElement[Any]]:
    kinds = (job_log.c.request_id.type, BigInteger(), BigInteger(), job_log.c.job_id.type, BigInteger())
    return [literal(value, kind) for value, kind in zip(key, kinds, strict=True)]


def _try_of(row: Any) -> Try:
    entry = entry_without_output(row, row.number)
    key = TryKey(row.request_id, row.of_epoch, row.in_epoch, row.job_id, row.number)
    return Try(key, entry, row.change_stamp)
