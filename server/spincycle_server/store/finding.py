"""Finds requests, newest first, through the index that reads the fewest rows.

If an index returns requests in the order of their creation, a page costs only its own rows, however many
requests exist. So this module chooses the index and does not leave the choice to the database. It reads the
newest matches through each index that a filter can use. If one has few matches, that index is used. Otherwise
the matches of the chosen index reach furthest into the past: it has the fewest rows per day.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, UnaryExpression, func, select, true
from sqlalchemy.engine import Connection
from sqlalchemy.sql.operators import custom_op

from spincycle_grpc.errors import CallCancelledError, InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_pb2 import Request, RequestFilter
from spincycle_server.store.ended_statements import REQUESTS_NOT_FOUND, explained_ends
from spincycle_server.store.found_types import FoundTypes
from spincycle_server.store.rows import marked_request_of, microseconds_of
from spincycle_server.store.scan import Branch, Scan, Span
from spincycle_server.store.schema import MAX_ARG_VALUE, MAX_TEXT, request_args, requests

BLOCK = 2_000
"""Rows per block. A find without a limit holds only one block of rows besides its requests."""

FEW = 100
"""If a filter has fewer matches than this, they are checked one by one."""

MAX_ARGS = 50
"""The maximum number of args in a filter. Each needs at least one more query."""

_ALL_STATES = tuple(State)
_BY_STATE = frozenset({"requests_type", "requests_user", "state"})
_POSITION = (requests.c.created_at, requests.c.request_id)
_NEWEST = Scan(requests, _POSITION, "created_at")
_ARG_POSITION = (request_args.c.created_at, request_args.c.request_id)


def find_requests(
    connection: Connection,
    wanted: RequestFilter,
    *,
    only_types: Collection[str] | None = None,
    hidden_types: Collection[str] = (),
    statement_limit: float | None = None,
    is_given_up: Callable[[], bool] = lambda: False,
) -> list[Request]:
    """Returns the requests that match a filter, newest first, then by id.

    Args:
        connection: An open connection.
        wanted: The filter.
        only_types: The types of requests to find; None for all.
        hidden_types: The types of requests not to find.
        statement_limit: Seconds after which MariaDB and MySQL end a statement; None for their own limit.
        is_given_up: Returns whether the caller has stopped waiting. It is called before each block.

    Raises:
        InvalidArgumentError: An arg of the filter is not of the form name=value, there are too many args, or
            a time is invalid.
        DeadlineExceededError: A statement took too long. Reason: FIND_TOO_SLOW.
        CallCancelledError: The caller has stopped waiting.
    """
    connection = connection.execution_options(statement_limit=statement_limit)
    with explained_ends(REQUESTS_NOT_FOUND):
        return _found(Finding(connection, wanted, is_given_up, only_types, hidden_types), wanted)


def _found(finding: Finding, wanted: RequestFilter) -> list[Request]:
    if not wanted.limit:
        return [marked_request_of(row) for row in finding.rows(BLOCK)]
    end = wanted.offset + wanted.limit
    rows = finding.rows(min(end, BLOCK))
    edges = (min(edge, 2**62) for edge in (wanted.offset, end))
    return [marked_request_of(row) for row in islice(rows, *edges)]


def _as_it_is(column: Any) -> Any:
    return column


_Seen: TypeAlias = Callable[[Any], Any]


@dataclass
class Finding:
    """One find.

    Args:
        connection: An open connection.
        wanted: The filter. Its limit and offset are ignored.
        is_given_up: See `find_requests`.
        only_types: See `find_requests`.
        hidden_types: See `find_requests`.
        behind: Only requests behind this time of creation and id.

    Raises:
        InvalidArgumentError: See `find_requests`.
    """

    connection: Connection
    wanted: RequestFilter
    is_given_up: Callable[[], bool]
    only_types: Collection[str] | None = None
    hidden_types: Collection[str] = ()
    behind: tuple[int, str] | None = None

    def __post_init__(self) -> None:
        if len(self.wanted.args) > MAX_ARGS:
            raise InvalidArgumentError(
                f"invalid 'arg' parameter: at most {MAX_ARGS} are allowed",
                reason="BAD_FILTER",
                field="filter.args",
            )
        self._types = FoundTypes(self.connection, self.wanted.type, self.only_types, self.hidden_types)
        self.args = [name_and_value(arg) for arg in self.wanted.args]
        self._since = time_of(self.wanted, "since")
        self._until = time_of(self.wanted, "until")
        self.states = sorted({int(state) for state in self.wanted.states} & {*_ALL_STATES})

    def rows(self, block: int) -> Iterator[Any]:
        """Yields the rows in order, read a block at a time."""
        if self.is_empty:
            return
        for span in self.spans:
            yield from self._rows_in(span, block)

    @property
    def is_empty(self) -> bool:
        """Whether no request can match, because of the types or the states."""
        return bool(self.wanted.states and not self.states) or self._types.names == []

    @cached_property
    def _scans_types(self) -> bool:
        """Whether to read each type by itself. A type that the filter names is always read so."""
        if not self._types.may_be_scanned or self.wanted.type:
            return self._types.may_be_scanned
        newest, _ = _NEWEST.read(self.connection, self.spans[0], FEW, [])
        return self._types.are_rare(newest)

    @cached_property
    def spans(self) -> list[Span]:
        """The spans of creation times to read, the newest first.

        A request created after `since` cannot have finished before it. Of the older requests, only those that
        had not finished at `since` match. They are few, and a page seldom needs them.
        """
        whole = Span(before=self._until, behind=self.behind)
        if self._since is None:
            return [whole]
        return [replace(whole, after=self._since), replace(whole, up_to=self._since)]

    def _rows_in(self, span: Span, block: int) -> Iterator[Any]:
        scan = self._plan(span)
        conditions = self.conditions(scan.index) if scan.table is requests else None
        while True:
            if self.is_given_up():
                raise CallCancelledError("the caller has stopped waiting", reason="FIND_GIVEN_UP")
            found, rest = scan.read(self.connection, span, block, conditions)
            found = self._with_args(found, scan)
            yield from found if scan.table is requests else self._rows_of(found)
            if rest is None:
                return
            span = rest
            if self.args:
                block = min(2 * block, BLOCK)  # The last block may have had few rows with all args.

    def _with_args(self, rows: list[Any], scan: Scan) -> list[Any]:
        """Returns the rows of a scan whose requests have all wanted args.

        The args are looked up by request id with an index hint. Without the hint, a database that cannot
        estimate the number of matches would read all requests with the arg.
        """
        for name, value in self.args:
            if not rows or scan is self.arg_scans[name, value]:
                continue
            ids = [row.request_id for row in rows]
            conditions = self.is_arg(name, value, self._unindexed)
            query = (
                select(request_args.c.request_id)
                .where(request_args.c.request_id.in_(ids), *conditions)
                .with_hint(request_args, "FORCE INDEX (PRIMARY)", "mysql")
            )
            having = set(self.connection.scalars(query))
            rows = [row for row in rows if row.request_id in having]
        return rows

    def _rows_of(self, positions: Sequence[Any]) -> list[Any]:
        """Returns the rows of the requests at some positions that meet all conditions, in the same order."""
        if not positions:
            return []
        ids = [position.request_id for position in positions]
        query = (
            select(requests)
            .where(requests.c.request_id.in_(ids), *self.conditions())
            .with_hint(requests, "FORCE INDEX (PRIMARY)", "mysql")
        )
        rows = {row.request_id: row for row in self.connection.execute(query)}
        return [rows[request_id] for request_id in ids if request_id in rows]

    def _unindexed(self, column: Any) -> Any:
        """Returns a column. For SQLite, which has no index hints, it is an expression without an index."""
        if self.connection.dialect.name != "sqlite":
            return column
        return UnaryExpression(column, operator=custom_op("+"), type_=column.type)

    def _plan(self, span: Span) -> Scan:
        """Chooses the index to read a span through."""
        scans = self.scans
        if span.up_to is not None:
            running = self.running_at(span.up_to)
            if not scans or self._is_few(running, span):
                return running
        if not scans:
            return _NEWEST
        if len(scans) == 1:
            return scans[0]
        samples = [(scan.read(self.connection, span, FEW), scan) for scan in scans]
        few = [(len(found), scan) for (found, rest), scan in samples if rest is None]
        if few:
            return min(few, key=lambda one: one[0])[1]
        return min(samples, key=lambda one: one[0][0][-1].created_at)[1]

    @cached_property
    def scans(self) -> list[Scan]:
        """One scan for each filter that has an index."""
        scans = []
        if self._scans_types:
            equals = [((requests.c.type, name),) for name in self._types.names or ()]
            scans.append(self.by_state("requests_type", equals))
        if self.wanted.user:
            scans.append(self.by_state("requests_user", [((requests.c.user, self.wanted.user),)]))
        if self.states and not scans:
            scans.append(self.by_state("state", [()]))
        return [*scans, *self.arg_scans.values()]

    @cached_property
    def arg_scans(self) -> dict[tuple[str, str], Scan]:
        """One scan for each arg of the filter."""
        return {
            (name, value): Scan(
                request_args,
                _ARG_POSITION,
                "request_args_newest",
                (Branch((), self.is_arg(name, value)),),
            )
            for name, value in self.args
        }

    def by_state(self, index: str, equals: Iterable[tuple[tuple[Any, str], ...]]) -> Scan:
        """Returns a scan through an index whose last columns are the state and the time of creation.

        The last of the equal columns of each branch is the state.
        """
        conditions = self._is_user() if index == "requests_user" else ()
        branches = [
            Branch((*equal, (requests.c.state, state)), conditions)
            for equal in equals
            for state in self.states or _ALL_STATES
        ]
        return Scan(requests, _POSITION, index, branches)

    def running_at(self, time: int) -> Scan:
        """Returns a scan of the requests that had not finished at a time."""
        ends = [
            Branch((), (requests.c.finished_at.is_(None),)),
            Branch((), (requests.c.finished_at > time,)),
        ]
        position = (self._unindexed(requests.c.created_at), requests.c.request_id)
        return Scan(requests, position, "finished_at", ends)

    def _is_few(self, running: Scan, span: Span) -> bool:
        return all(
            len(
                self.connection.execute(
                    select(requests.c.request_id)
                    .where(branch.all())
                    .with_hint(requests, f"FORCE INDEX ({running.index})", "mysql")
                    .limit(FEW)
                ).all()
            )
            < FEW
            for branch in running.branches
        )

    def conditions(self, index: str = "", *, ends: bool = True) -> list[ColumnElement[bool]]:
        """Returns the conditions on a row of `requests`, except its time of creation and args.

        Conditions that the index already guarantees are left out. The others are written so that the
        database uses no further index.

        Args:
            index: The index that finds the row.
            ends: Whether to include the condition on the time at which the request finished.
        """
        conditions: list[ColumnElement[bool]] = []
        if index != "requests_type":
            conditions += self._types.conditions(self._unindexed(requests.c.type))
        if self.wanted.user and index != "requests_user":
            conditions += self._is_user(self._unindexed)
        if self.states and index not in _BY_STATE:
            conditions.append(self._unindexed(requests.c.state).in_(self.states))
        if self._since is not None and ends:
            conditions.append(func.coalesce(requests.c.finished_at > self._since, true()))
        return conditions

    def _is_user(self, seen: _Seen = _as_it_is) -> tuple[ColumnElement[bool], ...]:
        return self._same_text(seen(requests.c.user), self.wanted.user, MAX_TEXT)

    def is_arg(self, name: str, value: str, seen: _Seen = _as_it_is) -> tuple[ColumnElement[bool], ...]:
        """Returns the conditions on a row of `request_args` to be an arg of the filter."""
        return (
            *self._same_text(seen(request_args.c.name), name, MAX_TEXT),
            *self._same_text(seen(request_args.c.value), value, MAX_ARG_VALUE),
        )

    def _same_text(self, column: Any, text: str, length: int) -> tuple[ColumnElement[bool], ...]:
        """Compares a column with the part of a text that fits it.

        On MySQL, which ignores trailing spaces, the lengths are compared too.
        """
        kept = text[:length]
        if self.connection.dialect.name != "mysql":
            return (column == kept,)
        return (column == kept, func.char_length(column) == len(kept))


def name_and_value(arg: str) -> tuple[str, str]:
    """Returns the name and the value of an arg in a filter.

    Raises:
        InvalidArgumentError: It is not of the form name=value. Reason: BAD_FILTER.
    """
    name, equals, value = arg.partition("=")
    if not name or not equals:
        raise InvalidArgumentError(
            f"invalid 'arg' parameter: {arg!r} must be name=value", reason="BAD_FILTER", field="filter.args"
        )
    return name, value


def time_of(wanted: RequestFilter, name: str) -> int | None:
    """Returns a time of the filter in microseconds, the precision of the databases.

    `until` is rounded up and `since` is rounded down. So the comparison stays exact, because all stored
    times are whole microseconds.

    Args:
        wanted: The filter.
        name: The name of the field: since or until.

    Returns:
        The time since the Unix epoch; None if the filter does not set it.

    Raises:
        InvalidArgumentError: The time is invalid. Reason: BAD_FILTER.
    """
    if not wanted.HasField(name):  # type: ignore[arg-type]
        return None
    time = getattr(wanted, name)
    if not (-62_135_596_800 <= time.seconds <= 253_402_300_799 and 0 <= time.nanos < 1_000_000_000):
        raise InvalidArgumentError(
            f"invalid '{name}' parameter: must be a time in the years 1 to 9999",
            reason="BAD_FILTER",
            field=f"filter.{name}",
        )
    microseconds = microseconds_of(time) + (name == "until" and time.nanos % 1000 > 0)
    return min(max(microseconds, 0), 253_402_300_799_999_999)
