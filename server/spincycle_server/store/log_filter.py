"""Which entries of the job log of a request are wanted, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, exists, or_, select, text
from sqlalchemy.engine import Connection

from spincycle_grpc.state import State
from spincycle_server.store.report_order import ReportPlace, in_report_order
from spincycle_server.store.schema import INDEXED_BY_FAILURE, job_log

_NOOP = "noop"

_later = job_log.alias("later")


class LogPosition(NamedTuple):
    """The place of an entry in the job log of a request.

    Attributes:
        job_id: Its job.
        number: The number of its try.
        epoch: The assignment in which it ran; 0 if it had none. Only for the newest first.
        ordinal: See `ReportPlace`. Only for the newest first.
    """

    job_id: str
    number: int
    epoch: int = 0
    ordinal: int = 0


@dataclass(frozen=True, slots=True)
class LogFilter:
    """The wanted entries. The default is all of them, by job id and try.

    Attributes:
        states: The states of the tries; empty for all.
        job_id: The job; "" for all.
        latest_tries: Whether to return only the newest try of each job.
        omits_noops: Whether to leave out the noops that only connect other jobs.
        newest_first: Whether the entries come in the order of their reports, the newest first.
    """

    states: frozenset[int] = frozenset()
    job_id: str = ""
    latest_tries: bool = False
    omits_noops: bool = False
    newest_first: bool = False

    def read(
        self,
        connection: Connection,
        request_id: str,
        columns: list[Any],
        behind: LogPosition | None = None,
        limit: int | None = None,
    ) -> list[Any]:
        """Returns the rows of a request.

        Args:
            connection: An open connection.
            request_id: The request.
            columns: The columns to read. Rows also have those that `position_of` needs.
            behind: The last row before; None to begin with the first one.
            limit: The maximum number of rows; None for all.
        """
        names = {column.name for column in columns}
        missing = [column for column in _POSITION if column.name not in names]
        query = select(*columns, *missing).where(job_log.c.request_id == request_id, *self._conditions())
        if self.newest_first:
            place = None if behind is None else ReportPlace(behind.epoch, behind.ordinal, *behind[:2])
            return in_report_order(connection, query, place, limit, newest_first=True)
        return list(connection.execute(_by_job(query, behind).limit(limit)))

    def _conditions(self) -> list[ColumnElement[bool]]:
        conditions: list[ColumnElement[bool]] = []
        if self.states:
            conditions.append(job_log.c.state.in_(sorted(self.states)))
            if State.COMPLETE not in self.states:
                conditions.append(text(INDEXED_BY_FAILURE))  # type: ignore[arg-type] # it is a condition
        if self.job_id:
            conditions.append(job_log.c.job_id == self.job_id)
        if self.omits_noops:
            conditions.append(or_(job_log.c.name != _NOOP, job_log.c.type != _NOOP))
        if self.latest_tries:
            conditions.append(
                ~exists().where(
                    _later.c.request_id == job_log.c.request_id,
                    _later.c.job_id == job_log.c.job_id,
                    _later.c["try"] > job_log.c["try"],
                )
            )
        return conditions


ALL = LogFilter()
"""All entries, by job id and try."""

_POSITION = (job_log.c.job_id, job_log.c["try"], job_log.c.epoch, job_log.c.ordinal, job_log.c.finished_at)


def position_of(row: Any) -> LogPosition:
    """Returns the position of a row that `LogFilter.read` returned."""
    number = row._mapping["try"]  # The name is a keyword of Python.
    if row.epoch is None:
        return LogPosition(row.job_id, number, 0, row.finished_at or 0)
    return LogPosition(row.job_id, number, row.epoch, row.ordinal)


def _by_job(query: Select[Any], behind: LogPosition | None) -> Select[Any]:
    job_id, number = job_log.c.job_id, job_log.c["try"]
    if behind is not None:  # In a form for which all databases use the primary key.
        query = query.where(
            and_(job_id >= behind.job_id, or_(job_id > behind.job_id, number > behind.number))
        )
    return query.order_by(job_id, number)
