"""Job logs: one row for each finished try of a job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import select
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import NotFoundError, SpinCycleError
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.runner_reports_pb2 import TryReport
from spincycle_grpc.wire import encode
from spincycle_server.database.dialects import insert_ignoring
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store.errors import not_found
from spincycle_server.store.log_filter import ALL, LogFilter
from spincycle_server.store.rows import log_entry_of, path_json
from spincycle_server.store.schema import job_log, requests
from spincycle_server.store.write import Write

LOG_COLUMNS = (
    job_log.c.request_id,
    job_log.c.job_id,
    job_log.c["try"],
    job_log.c.name,
    job_log.c.type,
    job_log.c.started_at,
    job_log.c.finished_at,
    job_log.c.state,
    job_log.c.exit,
    job_log.c.error,
    job_log.c.path,
    job_log.c.stdout,
    job_log.c.stderr,
)
"""The columns of an entry, as `log_entry_of` reads them. The last two are its output."""

INSERT_TRY = RowStatement(lambda dialect_name: insert_ignoring(dialect_name, job_log))


def log_row(entry: JobLog, stamp: int | None) -> dict[str, Any]:
    """Returns the row of a log entry, without the columns that only recovery reads."""
    row = try_row(TryReport(entry=entry), None, stamp)
    row.update(sequence_try=None, ordinal=None, is_last=None)
    return row


def try_row(tried: TryReport, epoch: int | None, stamp: int | None) -> dict[str, Any]:
    """Returns the row of a finished try that a runner reported.

    Args:
        tried: The report.
        epoch: The assignment in which it ran.
        stamp: The stamp of the transaction.
    """
    entry = tried.entry
    return {
        "request_id": entry.request_id,
        "job_id": entry.job_id,
        "try": getattr(entry, "try"),
        "name": entry.name,
        "type": entry.type,
        "state": entry.state,
        "started_at": entry.started_at,
        "finished_at": entry.finished_at,
        "error": entry.error,
        "exit": entry.exit,
        "stdout": stdout.encode() if (stdout := entry.stdout) else b"",
        "stderr": stderr.encode() if (stderr := entry.stderr) else b"",
        "job_data": encode(tried.job_data) if tried.HasField("job_data") else None,
        "sequence_try": tried.sequence_try,
        "epoch": epoch,
        "ordinal": tried.ordinal,
        "is_last": tried.is_last,
        "path": path_json(path) if (path := entry.path) else None,
        "change_stamp": stamp,
    }


@dataclass(slots=True)
class RecordLog(Write):
    """Records one finished try, unless the try has an entry already. Result: None."""

    order: ClassVar[int] = 7
    entry: JobLog

    @property
    def request_ids(self) -> Iterable[str]:
        """The request of the try."""
        return (self.entry.request_id,)

    @classmethod
    def apply_all(
        cls, transaction: Transaction, writes: Sequence[RecordLog]
    ) -> Sequence[SpinCycleError | None]:
        """Looks up which requests exist in one statement, and inserts in another."""
        ids = {write.entry.request_id for write in writes}
        known = set(
            transaction.execute(select(requests.c.request_id).where(requests.c.request_id.in_(ids))).scalars()
        )
        rows = [
            log_row(write.entry, transaction.stamp) for write in writes if write.entry.request_id in known
        ]
        transaction.change(INSERT_TRY, rows)
        return [
            None if write.entry.request_id in known else not_found(write.entry.request_id) for write in writes
        ]


def get_log(connection: Connection, request_id: str, wanted: LogFilter = ALL) -> list[JobLog]:
    """Returns the job log of a request, or the wanted entries of it.

    Raises:
        NotFoundError: The request does not exist.
    """
    entries = [log_entry_of(row) for row in wanted.read(connection, request_id, list(LOG_COLUMNS))]
    if not entries:
        check_request(connection, request_id)
    return entries


def check_request(connection: Connection, request_id: str) -> None:
    """Checks that a request exists.

    Raises:
        NotFoundError: It does not.
    """
    known = select(requests.c.request_id).where(requests.c.request_id == request_id)
    if connection.execute(known).one_or_none() is None:
        raise not_found(request_id)


def get_try(connection: Connection, request_id: str, job_id: str, number: int) -> JobLog:
    """Returns the entry of a try that is known to be recorded."""
    query = select(*LOG_COLUMNS).where(
        job_log.c.request_id == request_id, job_log.c.job_id == job_id, job_log.c["try"] == number
    )
    return log_entry_of(connection.execute(query).one())


def get_job_log(connection: Connection, request_id: str, job_id: str) -> JobLog:
    """Returns the newest entry of a job.

    Raises:
        NotFoundError: The job has no entry. Reason: JOB_NOT_FOUND.
    """
    query = (
        select(*LOG_COLUMNS)
        .where(job_log.c.request_id == request_id, job_log.c.job_id == job_id)
        .order_by(job_log.c["try"].desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(
            f"job {job_id} not found in request {request_id}",
            reason="JOB_NOT_FOUND",
            request_id=request_id,
        )
    return log_entry_of(row)
