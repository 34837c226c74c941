"""Reads a table newest first through one index, one block of rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Select, Table, and_, literal, literal_column, or_, select, union_all
from sqlalchemy.engine import Connection

Conditions: TypeAlias = Sequence[ColumnElement[bool]]

_EARLIEST = 0
_LATEST = 253_402_300_799_999_999


@dataclass(frozen=True, slots=True)
class Span:
    """A span of creation times, in microseconds since the Unix epoch.

    Attributes:
        after: Only later times.
        up_to: Only this time and earlier ones.
        before: Only earlier times.
        behind: Only rows behind this time and id, ordered newest first and then by id.
    """

    after: int | None = None
    up_to: int | None = None
    before: int | None = None
    behind: tuple[int, str] | None = None

    def conditions(self, created_at: Any, request_id: Any) -> list[ColumnElement[bool]]:
        """Returns the conditions that a row must meet."""
        met: list[ColumnElement[bool]] = []
        if self.after is not None:
            met.append(created_at > self.after)
        latest = [time for time in (self.up_to, self.behind and self.behind[0]) if time is not None]
        if latest:
            met.append(created_at <= min(latest))
        if self.before is not None:
            met.append(created_at < self.before)
        if self.behind is not None:
            time, last_id = self.behind
            met.append(or_(created_at < time, and_(created_at == time, request_id > last_id)))
        return met

    @property
    def bounds(self) -> tuple[int, int]:
        """The earliest and the latest time in the span."""
        latest = [
            time for time in (self.up_to, self.before, self.behind and self.behind[0]) if time is not None
        ]
        return self.after or _EARLIEST, min([_LATEST, *latest])


@dataclass(frozen=True, slots=True)
class Branch:
    """The conditions for one part of a scan's rows.

    Attributes:
        equal: The index's columns before the time of creation, with their values.
        conditions: Further conditions.
    """

    equal: tuple[tuple[Any, Any], ...] = ()
    conditions: tuple[ColumnElement[bool], ...] = ()

    def all(self) -> ColumnElement[bool]:
        """Returns the conditions that a row must meet."""
        return and_(True, *(column == value for column, value in self.equal), *self.conditions)

    def newest(self, query: Select[Any], created_at: Any, span: Span, dialect: str) -> Select[Any]:
        """Returns a query for the rows of this branch only, newest first."""
        if dialect != "postgresql" or len(self.equal) < 2:
            return query.where(self.all()).order_by(created_at.desc())
        # PostgreSQL prefers an index with fewer columns and filters its rows if it expects to find matches
        # soon. Only the intended index is ordered by this expression.
        time = _at_utc(created_at)
        earliest, latest = (_at_utc(literal(bound, created_at.type)) for bound in span.bounds)
        return query.where(self.all(), time >= earliest, time <= latest).order_by(time.desc())


def _at_utc(time: Any) -> Any:
    return time.op("AT TIME ZONE")(literal_column("'UTC'"))


@dataclass(frozen=True, slots=True)
class Scan:
    """Rows to read through one index.

    Attributes:
        table: The table.
        position: The table's columns for the time of creation and the request id.
        index: The name of the index.
        branches: Each row meets exactly one of them. Branches are read separately, because within a branch
            the index has the rows in the order of their creation.
    """

    table: Table
    position: tuple[Any, Any]
    index: str
    branches: Sequence[Branch] = (Branch(),)

    def read(
        self, connection: Connection, span: Span, size: int, conditions: Conditions | None = None
    ) -> tuple[list[Any], Span | None]:
        """Reads the first rows of a span, newest first and then by id.

        Most databases cannot read an index backwards in one column and forwards in the next. So rows are
        read by time. Only if a block would end between rows with the same time are those rows read by id.

        Args:
            connection: An open connection.
            span: The times of creation to read.
            size: The maximum number of rows.
            conditions: Further conditions; None if there are none and only the position is needed.

        Returns:
            The rows, and the rest of the span, or None if no rows are left.
        """
        created_at, request_id = self.position
        query = self._select(conditions is None).where(*(conditions or ()), *span.conditions(*self.position))
        dialect = connection.dialect.name
        newest = [branch.newest(query, created_at, span, dialect).limit(size + 1) for branch in self.branches]
        rows = sorted(connection.execute(_together(newest)), key=_order)
        if len(rows) <= size:
            return rows, None
        rows, last = rows[: size + 1], rows[size - 1]
        if rows.pop().created_at == last.created_at:
            rows = [row for row in rows if row.created_at > last.created_at]
            branches = or_(*(branch.all() for branch in self.branches))
            tied = query.where(created_at == last.created_at, branches).order_by(request_id)
            rows += connection.execute(tied.limit(size - len(rows)))
        if not rows:  # The rows have changed in the meantime.
            return rows, None
        return rows, replace(span, behind=(rows[-1].created_at, rows[-1].request_id))

    def _select(self, position_alone: bool) -> Select[Any]:
        query = select(*self.position) if position_alone else select(self.table)
        return query.with_hint(self.table, f"FORCE INDEX ({self.index})", "mysql")


def _order(row: Any) -> tuple[int, str]:
    return -row.created_at, row.request_id


def _together(queries: Sequence[Select[Any]]) -> Any:
    if len(queries) == 1:
        return queries[0]
    # SQLite accepts ORDER BY within a union only in a subquery.
    return union_all(*(select(query.subquery()) for query in queries))
