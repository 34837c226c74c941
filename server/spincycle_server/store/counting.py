"""Counts requests by state. The cost is bounded, however many requests exist.

Each state is counted through the index that the filter can use, from its newest request on, and counting ends
at a limit. If the index has all that the filter asks for, no row is read. Otherwise the rows behind the index
are compared, and the limit bounds these rows too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    Subquery,
    and_,
    case,
    exists,
    func,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.engine import Connection

from spincycle_grpc.state import FINAL_STATES, State
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_server.store.ended_statements import REQUESTS_NOT_FOUND, explained_ends
from spincycle_server.store.finding import Finding
from spincycle_server.store.found_types import FoundTypes
from spincycle_server.store.scan import Scan, Span
from spincycle_server.store.schema import request_args, requests

MAX_COUNT = 10_000
"""The largest count, and the most entries of an index that one count reads."""

COUNTED_STATES = tuple(state for state in State if state not in (State.UNKNOWN, State.RESERVED))
"""The states that requests have."""

_OTHER_STATES = frozenset(State) - FINAL_STATES


class Count(NamedTuple):
    """A number of requests.

    Attributes:
        number: The number.
        more: Whether counting ended early, so there may be more.
    """

    number: int = 0
    more: bool = False


def count_requests(
    connection: Connection,
    wanted: RequestFilter,
    *,
    only_types: Collection[str] | None = None,
    hidden_types: Collection[str] = (),
    statement_limit: float | None = None,
    is_given_up: Callable[[], bool] = lambda: False,
) -> dict[int, Count]:
    """Counts the requests that match a filter, by state.

    Args:
        connection: An open connection.
        wanted: The filter. Its limit and offset are ignored.
        only_types: See `find_requests`.
        hidden_types: See `find_requests`.
        statement_limit: See `find_requests`.
        is_given_up: See `find_requests`.

    Returns:
        The counts of the filter's states, or of all states.

    Raises:
        SpinCycleError: See `find_requests`.
    """
    connection = connection.execution_options(statement_limit=statement_limit)
    with explained_ends(REQUESTS_NOT_FOUND):
        finding = Finding(connection, wanted, is_given_up, only_types, hidden_types)
        counts = {} if finding.is_empty else _Counting(finding).counts()
        states = finding.states if wanted.states else COUNTED_STATES
        return {int(state): counts.get(int(state), Count()) for state in states}


class RunningCounts(NamedTuple):
    """The numbers of RUNNING requests.

    Attributes:
        by_runner: The number for each runner, by its id.
        more: Whether counting ended early, so there may be more.
    """

    by_runner: dict[str, int]
    more: bool


def count_running(
    connection: Connection, *, only_types: Collection[str] | None = None, hidden_types: Collection[str] = ()
) -> RunningCounts:
    """Counts the RUNNING requests of each runner. It reads at most MAX_COUNT rows, the newest.

    Args:
        connection: An open connection.
        only_types: The types of requests to count; None for all.
        hidden_types: The types of requests not to count.
    """
    types = FoundTypes(connection, "", only_types, hidden_types)
    matches = _as_number(types.conditions(requests.c.type))
    newest = _hinted(select(requests.c.runner_id, matches.label("matches")), "state")
    newest = newest.where(requests.c.state == State.RUNNING).order_by(requests.c.created_at.desc())
    found = newest.limit(MAX_COUNT + 1).subquery()
    query = select(found.c.runner_id, *_sums(found)).group_by(found.c.runner_id)
    rows = connection.execute(query).all()
    by_runner = {runner_id or "": int(matched) for runner_id, _, matched in rows}
    return RunningCounts(by_runner, sum(read_rows for _, read_rows, _ in rows) > MAX_COUNT)


class _Counting:
    """One count, with the filter of a find."""

    def __init__(self, finding: Finding) -> None:
        self._finding = finding
        self._connection = finding.connection

    def counts(self) -> dict[int, Count]:
        finding = self._finding
        if finding.args:
            return _best(self._with_arg(name, value) for name, value in finding.args)
        newer, *older = finding.spans
        scans = finding.scans or [finding.by_state("state", [()])]
        counts = _best(self._in_span(scan, newer) for scan in scans)
        for span in older:
            if span.up_to is not None:
                counts = _added(counts, self._unfinished_at(span.up_to, span))
        return counts

    def _in_span(self, scan: Scan, span: Span) -> dict[int, Count]:
        """Counts the requests in a span. None of them had finished at the time `since` of the filter."""
        matches = _as_number(self._finding.conditions(scan.index, ends=False))
        queries: list[Any] = []
        for branch in scan.branches:
            read = _hinted(select(matches.label("matches")), scan.index).where(
                *span.conditions(*scan.position)
            )
            newest = branch.newest(read, scan.position[0], span, self._connection.dialect.name)
            found = newest.limit(MAX_COUNT + 1).subquery()
            _, state = branch.equal[-1]
            queries.append(select(literal_column(str(int(state))).label("state"), *_sums(found)))
        counts: dict[int, Count] = {}
        for state, read_rows, matched in self._connection.execute(_together(queries)):
            counts = _added(counts, {state: Count(int(matched), read_rows > MAX_COUNT)})
        return counts

    def _unfinished_at(self, time: int, span: Span) -> dict[int, Count]:
        """Counts the requests of a span that had not finished at a time.

        Of the requests that finished later, only the first are read, by the time at which they finished.
        """
        scan = self._finding.running_at(time)
        conditions = [
            *self._finding.conditions(scan.index, ends=False),
            *span.conditions(scan.position[0], requests.c.request_id),
        ]
        counts: dict[int, Count] = {}
        for branch, states in zip(scan.branches, (_OTHER_STATES, FINAL_STATES), strict=True):
            read = _hinted(select(requests.c.state, _as_number(conditions).label("matches")), scan.index)
            read = read.where(branch.all()).order_by(requests.c.finished_at)
            found = read.limit(MAX_COUNT + 1).subquery()
            query = select(found.c.state, *_sums(found)).group_by(found.c.state)
            rows = self._connection.execute(query).all()
            is_cut = sum(read_rows for _, read_rows, _ in rows) > MAX_COUNT
            counts = _added(counts, dict.fromkeys(states, Count(0, is_cut)))
            counts = _added(counts, {state: Count(int(matched)) for state, _, matched in rows})
        return counts

    def _with_arg(self, name: str, value: str) -> dict[int, Count]:
        """Counts the newest requests that have an arg, of those that match the rest of the filter."""
        finding, dialect = self._finding, self._connection.dialect.name
        scan = finding.arg_scans[name, value]
        span = Span(before=finding.spans[0].before)
        created_at, request_id = scan.position
        read = select(request_id).with_hint(request_args, f"FORCE INDEX ({scan.index})", "mysql")
        newest = scan.branches[0].newest(
            read.where(*span.conditions(*scan.position)), created_at, span, dialect
        )
        found = newest.limit(MAX_COUNT + 1).subquery()
        is_cut = self._connection.scalars(select(func.count()).select_from(found)).one() > MAX_COUNT
        query = (
            select(requests.c.state, func.count())
            .join_from(found, requests, requests.c.request_id == found.c.request_id)
            .where(*finding.conditions(), *self._other_args(name, value))
            .group_by(requests.c.state)
            .with_hint(requests, "FORCE INDEX (PRIMARY)", "mysql")
        )
        counts: dict[int, Count] = dict.fromkeys(State, Count(0, is_cut))
        return _added(counts, {state: Count(count) for state, count in self._connection.execute(query)})

    def _other_args(self, name: str, value: str) -> list[ColumnElement[bool]]:
        return [
            exists().where(request_args.c.request_id == requests.c.request_id, *self._finding.is_arg(*arg))
            for arg in self._finding.args
            if arg != (name, value)
        ]


def _hinted(query: Select[Any], index: str) -> Select[Any]:
    return query.select_from(requests).with_hint(requests, f"FORCE INDEX ({index})", "mysql")


def _as_number(conditions: Sequence[ColumnElement[bool]]) -> ColumnElement[int]:
    """Returns 1 for rows that meet the conditions, otherwise 0. Without conditions, it names no column."""
    return case((and_(*conditions), 1), else_=0) if conditions else literal_column("1")


def _sums(found: Subquery) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """Returns the number of rows that were read, and of those that match."""
    return func.count(), func.coalesce(func.sum(found.c.matches), 0)


def _together(queries: Sequence[Any]) -> Any:
    return queries[0] if len(queries) == 1 else union_all(*queries)


def _added(one: Mapping[int, Count], other: Mapping[int, Count]) -> dict[int, Count]:
    """Adds counts. A sum above the limit is cut."""
    sums = dict(one)
    for state, added in other.items():
        before = sums.get(state, Count())
        total = before.number + added.number
        sums[state] = Count(min(total, MAX_COUNT), before.more or added.more or total > MAX_COUNT)
    return sums


def _best(all_counts: Iterable[Mapping[int, Count]]) -> dict[int, Count]:
    """Returns the best counts of several ways to count: the exact ones, otherwise the largest."""
    best: dict[int, Count] = {}
    for number, counts in enumerate(all_counts):
        for state in State if number == 0 else list(best):
            found = counts.get(state, Count())
            known = best.get(state)
            if known is None or (known.more and (not found.more or found.number > known.number)):
                best[state] = found
        if not any(one.more for one in best.values()):
            break
    return best
