"""Writes of what runners report: tries, progress, ends of chains, and that the runners live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Connection

from server.store.clock import database_now
from server.store.request_writes import RequestRows, not_found, wrong_state
from server.store.rows import microseconds_of
from server.store.schema import job_log, requests, runners, suspended_job_chains
from server.store.upserts import insert_ignoring
from server.store.writer import Write
from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.runner_reports_pb2 import (
    REFUSAL_REASON_INVALID,
    REFUSAL_REASON_NO_SUCH_REQUEST,
    REFUSAL_REASON_STALE,
    ChainReport,
    RefusedReport,
    RunnerInfo,
    TryReport,
)
from spincycle_grpc.wire import encode

_FINAL_STATES = (state_pb2.STATE_COMPLETE, state_pb2.STATE_FAIL, state_pb2.STATE_STOPPED)
_NEWEST_TRY = 32_767
"""The largest number of a try that the column holds."""


def log_row(entry: JobLog) -> dict[str, Any]:
    """Returns the row of a log entry alone, without what recovery needs."""
    return _row(entry, None, None, None)


def try_row(tried: TryReport, epoch: int) -> dict[str, Any]:
    """Returns the row of a finished try as a runner reports it."""
    return _row(tried.entry, tried, epoch, encode(tried.job_data) if tried.HasField("job_data") else None)


def _row(entry: JobLog, tried: TryReport | None, epoch: int | None, job_data: bytes | None) -> dict[str, Any]:
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
        "stdout": entry.stdout.encode(),
        "stderr": entry.stderr.encode(),
        "job_data": job_data,
        "sequence_try": tried.sequence_try if tried is not None else None,
        "epoch": epoch,
        "ordinal": tried.ordinal if tried is not None else None,
        "is_last": tried.is_last if tried is not None else None,
    }


_Suspended: TypeAlias = tuple[str, bytes, int | None]
"""A suspended chain: its request, its JSON, and the assignment that was suspended, if it was one of ours."""


@dataclass(slots=True)
class RecordLog(Write):
    """Records one finished try; the first entry of a try stands. Result: None."""

    order: ClassVar[int] = 7
    entry: JobLog

    @classmethod
    def apply_all(
        cls, connection: Connection, writes: Sequence[RecordLog]
    ) -> Sequence[SpinCycleError | None]:
        """One statement to see which requests there are, one to insert."""
        ids = {write.entry.request_id for write in writes}
        known = set(connection.scalars(select(requests.c.request_id).where(requests.c.request_id.in_(ids))))
        rows = [log_row(write.entry) for write in writes if write.entry.request_id in known]
        if rows:
            connection.execute(insert_ignoring(connection, job_log), rows)
        return [
            None if write.entry.request_id in known else not_found(write.entry.request_id) for write in writes
        ]


@dataclass(slots=True)
class Suspend(Write):
    """Stores a suspended chain and sets its request SUSPENDED. Result: None."""

    order: ClassVar[int] = 8
    request_id: str
    suspended: bytes
    finished_jobs: int

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[Suspend]) -> Sequence[SpinCycleError | None]:
        """Reads all rows, then writes states and chains."""
        rows = RequestRows(connection, (write.request_id for write in writes))
        results: list[SpinCycleError | None] = []
        stored: list[_Suspended] = []
        for write in writes:
            row = rows.get(write.request_id)
            if row is None:
                results.append(not_found(write.request_id))
            elif row["state"] != State.RUNNING:
                results.append(wrong_state(write.request_id, row["state"], State.RUNNING))
            else:
                _set_suspended(rows, write.request_id, write.finished_jobs)
                stored.append((write.request_id, write.suspended, None))
                results.append(None)
        _save_suspended(connection, stored)
        rows.save()
        return results


@dataclass(slots=True)
class ApplyReports(Write):
    """What one message of a runner says. Result: the list of RefusedReport."""

    order: ClassVar[int] = 9
    runner_id: str
    reports: Sequence[ChainReport]

    @classmethod
    def apply_all(
        cls, connection: Connection, writes: Sequence[ApplyReports]
    ) -> Sequence[list[RefusedReport]]:
        """Reads the requests' rows, decides which reports count, and writes all of them together."""
        rows = RequestRows(
            connection, (report.assignment.request_id for write in writes for report in write.reports)
        )
        batch = _ReportBatch(rows)
        results = [
            [refusal for report in write.reports if (refusal := batch.add(write.runner_id, report))]
            for write in writes
        ]
        if batch.tries:
            connection.execute(insert_ignoring(connection, job_log), batch.tries)
        _save_suspended(connection, batch.suspended)
        rows.save()
        return results


class _ReportBatch:
    """Collects the rows that reports come to."""

    def __init__(self, rows: RequestRows) -> None:
        self._rows = rows
        self.tries: list[dict[str, Any]] = []
        self.suspended: list[_Suspended] = []

    def add(self, runner_id: str, report: ChainReport) -> RefusedReport | None:
        """Takes a report in, or returns why not."""
        request_id = report.assignment.request_id
        row = self._rows.get(request_id)
        if row is None:
            return RefusedReport(assignment=report.assignment, reason=REFUSAL_REASON_NO_SUCH_REQUEST)
        if not _is_current(row, runner_id, report):
            if _is_repeated_end(row, runner_id, report):
                return None
            return RefusedReport(assignment=report.assignment, reason=REFUSAL_REASON_STALE)
        if not _is_valid(report):
            return RefusedReport(assignment=report.assignment, reason=REFUSAL_REASON_INVALID)
        epoch = report.assignment.epoch
        self.tries += [try_row(tried, epoch) for tried in report.tries]
        end = report.WhichOneof("end")
        if end == "suspended":
            _set_suspended(self._rows, request_id, report.finished_jobs)
            self.suspended.append((request_id, encode(report.suspended), epoch))
        elif end == "finish":
            self._rows.change(
                request_id,
                state=report.finish.state,
                finished_at=microseconds_of(report.finish.finished_at),
                finished_jobs=report.finished_jobs,
                jr_url=None,
            )
            if epoch > 1:  # It may have been resumed from a chain that was kept.
                self._rows.drop_suspended(request_id, for_good=True)
        elif row["finished_jobs"] != report.finished_jobs:
            self._rows.change(request_id, finished_jobs=report.finished_jobs)
        return None


def _is_current(row: Mapping[str, Any], runner_id: str, report: ChainReport) -> bool:
    return bool(
        row["state"] == State.RUNNING
        and row["epoch"] == report.assignment.epoch
        and row["runner_id"] == runner_id
    )


def _is_repeated_end(row: Mapping[str, Any], runner_id: str, report: ChainReport) -> bool:
    """Whether the report is the last one of its assignment, sent again after it was stored."""
    if row["epoch"] != report.assignment.epoch or row["runner_id"] != runner_id:
        return False
    end = report.WhichOneof("end")
    if end == "suspended":
        return bool(row["state"] == State.SUSPENDED)
    return end == "finish" and bool(row["state"] == report.finish.state)


def _is_valid(report: ChainReport) -> bool:
    if report.WhichOneof("end") == "finish" and report.finish.state not in _FINAL_STATES:
        return False
    return all(
        tried.entry.request_id == report.assignment.request_id
        and len(tried.entry.job_id) == 4
        and 0 < getattr(tried.entry, "try") <= _NEWEST_TRY
        for tried in report.tries
    )


def _set_suspended(rows: RequestRows, request_id: str, finished_jobs: int) -> None:
    rows.change(request_id, state=State.SUSPENDED, jr_url=None, finished_jobs=finished_jobs)


def _save_suspended(connection: Connection, chains: Sequence[_Suspended]) -> None:
    if not chains:
        return
    now = database_now(connection)
    ids = [request_id for request_id, _, _ in chains]
    kept = set(
        connection.scalars(
            select(suspended_job_chains.c.request_id).where(
                suspended_job_chains.c.request_id.in_(ids), suspended_job_chains.c.is_dropped.is_not(True)
            )
        )
    )
    connection.execute(delete(suspended_job_chains).where(suspended_job_chains.c.request_id.in_(ids)))
    connection.execute(
        insert(suspended_job_chains),
        [
            {
                "request_id": request_id,
                "suspended_job_chain": data,
                "updated_at": now,
                "suspended_at": now,
                "epoch": epoch,
                "is_dropped": epoch is not None and request_id not in kept,
            }
            for request_id, data, epoch in chains
        ],
    )


@dataclass(slots=True)
class RenewRunner(Write):
    """Makes a runner live on for a while. Result: None."""

    order: ClassVar[int] = 1
    runner: RunnerInfo
    lease: float
    draining: bool

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[RenewRunner]) -> Sequence[None]:
        """Replaces the rows of the runners, and of those that had their addresses before."""
        now = database_now(connection)
        newest = {write.runner.runner_id: write for write in writes}
        addresses = [write.runner.grpc_address for write in newest.values()]
        connection.execute(
            delete(runners).where(runners.c.runner_id.in_(newest) | runners.c.grpc_address.in_(addresses))
        )
        connection.execute(
            insert(runners),
            [
                {
                    "runner_id": runner_id,
                    "url": write.runner.url,
                    "grpc_address": write.runner.grpc_address,
                    "draining": write.draining,
                    "lease_expires_at": now + int(write.lease * 1_000_000),
                }
                for runner_id, write in newest.items()
            ],
        )
        return [None] * len(writes)


@dataclass(slots=True)
class RemoveRunner(Write):
    """Ends the lease of a runner that has left. Result: None."""

    order: ClassVar[int] = 10
    runner_id: str

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[RemoveRunner]) -> Sequence[None]:
        """One statement."""
        connection.execute(delete(runners).where(runners.c.runner_id.in_([one.runner_id for one in writes])))
        return [None] * len(writes)
