"""The order in which the tries of a request were reported, read through an index.

Tries that an original recorded have no assignment. They come first, in the order in which they finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, or_
from sqlalchemy.engine import Connection

from spincycle_server.store.schema import job_log

_JOB_ID, _NUMBER = job_log.c.job_id, job_log.c["try"]
_FINISHED_AT = func.coalesce(job_log.c.finished_at, 0)


class ReportPlace(NamedTuple):
    """The place of a try among the tries of its request.

    Attributes:
        epoch: The assignment in which it ran; 0 if it had none.
        ordinal: Its place in the assignment; without assignment, when it finished.
        job_id: Its job.
        number: Its number among the job's tries.
    """

    epoch: int
    ordinal: int
    job_id: str
    number: int


def in_report_order(
    connection: Connection,
    query: Select[Any],
    behind: ReportPlace | None,
    limit: int | None,
    *,
    newest_first: bool = False,
) -> list[Any]:
    """Returns rows of one request in the order of their reports, or in the opposite order.

    A page reads only its own rows, unless the query has conditions of its own.

    Args:
        connection: An open connection.
        query: The columns and the conditions, with the id of the request among them.
        behind: Only rows that come after this place in the wanted order; None for all.
        limit: The maximum number of rows; None for all.
        newest_first: Whether the newest report comes first.
    """
    rows: list[Any] = []
    for is_assigned in (True, False) if newest_first else (False, True):
        left = None if limit is None else limit - len(rows)
        if left == 0:
            break
        if behind is not None and is_assigned == newest_first and is_assigned != bool(behind.epoch):
            continue  # All of these come before the place.
        is_within = behind is not None and is_assigned == bool(behind.epoch)
        part = _part(query, is_assigned, behind if is_within else None, newest_first)
        rows += connection.execute(part.limit(left))
    return rows


def _part(
    query: Select[Any], is_assigned: bool, behind: ReportPlace | None, newest_first: bool
) -> Select[Any]:
    """Returns the query for the rows with an assignment, or for those without one."""
    epoch, ordinal = job_log.c.epoch, job_log.c.ordinal
    columns: list[Any] = [epoch, ordinal] if is_assigned else [_FINISHED_AT]
    columns += [_JOB_ID, _NUMBER]
    query = query.where(epoch.is_not(None) if is_assigned else epoch.is_(None))
    if behind is not None:
        query = query.where(_is_behind(columns, behind[-len(columns) :], newest_first))
    return query.order_by(*((column.desc() if newest_first else column) for column in columns))


def _is_behind(columns: Sequence[Any], values: Sequence[Any], newest_first: bool) -> ColumnElement[bool]:
    """The condition of later rows. Databases use the index for the first column of each level."""
    column, value = columns[0], values[0]
    later: ColumnElement[bool] = column < value if newest_first else column > value
    if len(columns) == 1:
        return later
    not_earlier: ColumnElement[bool] = column <= value if newest_first else column >= value
    return and_(not_earlier, or_(later, _is_behind(columns[1:], values[1:], newest_first)))
