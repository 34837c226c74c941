"""Stores what runners report about their chains: finished tries, progress and ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from spincycle_grpc.state import FINAL_STATES, State
from spincycle_grpc.v1.approval_pb2 import OpenedApproval
from spincycle_grpc.v1.runner_reports_pb2 import (
    REFUSAL_REASON_INVALID,
    REFUSAL_REASON_NO_SUCH_REQUEST,
    REFUSAL_REASON_STALE,
    ChainReport,
    RefusedReport,
    TryReport,
)
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.approval_rows import WaitKey
from spincycle_server.store.approvals import approvals_opened, is_valid_opening, waits_ended
from spincycle_server.store.endings import must_fail
from spincycle_server.store.job_logs import INSERT_TRY, try_row
from spincycle_server.store.request_rows import RequestRows
from spincycle_server.store.rows import microseconds_of
from spincycle_server.store.schema import JOB_ID, MAX_TRY
from spincycle_server.store.sequence_limits import are_valid_changes, limits_changed
from spincycle_server.store.suspended_chains import SuspendedRow, save_suspended, set_suspended
from spincycle_server.store.write import Write


@dataclass(slots=True)
class ApplyReports(Write):
    """Stores the reports of one message of a runner. Result: the list of RefusedReport.

    Attributes:
        runner_id: The runner.
        reports: Its reports.
        suspended: The JSON to store of each suspended chain, by request id. It is made before the transaction
            begins, because a large chain takes seconds, and the database ends transactions that do nothing.
        is_audited: Whether the audit log records the requests that sequences stop at a limit.
    """

    order: ClassVar[int] = 9
    is_reserved: ClassVar[bool] = True
    runner_id: str
    reports: Sequence[ChainReport]
    suspended: Mapping[str, bytes]
    is_audited: bool = False

    @property
    def request_ids(self) -> Iterable[str]:
        """The requests of the reports."""
        return (report.assignment.request_id for report in self.reports)

    @classmethod
    def apply_all(
        cls, transaction: Transaction, writes: Sequence[ApplyReports]
    ) -> Sequence[list[RefusedReport]]:
        """Reads the rows of the requests, decides which reports to accept, and writes those together."""
        rows = RequestRows(
            transaction,
            (report.assignment.request_id for write in writes for report in write.reports),
            for_reports=True,
        )
        batch = _ReportBatch(rows, transaction.stamp)
        results = [
            [refusal for report in write.reports if (refusal := batch.add(write, report))] for write in writes
        ]
        transaction.change(INSERT_TRY, batch.tries)
        approvals_opened(transaction, rows, batch.opened)
        waits_ended(transaction, batch.ended_waits)
        save_suspended(transaction, batch.suspended)
        rows.save()
        if batch.limits:
            limits_changed(
                transaction, rows, batch.limits, is_audited=any(write.is_audited for write in writes)
            )
        return results


class _ReportBatch:
    """Collects the rows to write for some reports."""

    def __init__(self, rows: RequestRows, stamp: int | None) -> None:
        self._rows = rows
        self._stamp = stamp
        self.tries: list[dict[str, Any]] = []
        self.suspended: list[SuspendedRow] = []
        self.opened: list[tuple[str, OpenedApproval]] = []
        self.ended_waits: list[WaitKey] = []
        self.limits: list[ChainReport] = []

    def add(self, write: ApplyReports, report: ChainReport) -> RefusedReport | None:
        """Adds a report, or returns why it is refused."""
        runner_id = write.runner_id
        assignment = report.assignment
        request_id, epoch = assignment.request_id, assignment.epoch
        row = self._rows.get(request_id)
        if row is None:
            return RefusedReport(assignment=assignment, reason=REFUSAL_REASON_NO_SUCH_REQUEST)
        end = report.WhichOneof("end")
        if row["epoch"] != epoch or row["runner_id"] != runner_id or row["state"] != State.RUNNING:
            if _is_repeated_end(row, runner_id, report):
                return None
            return RefusedReport(assignment=assignment, reason=REFUSAL_REASON_STALE)
        tries = report.tries
        if not _is_valid(report, request_id, tries, end):
            return RefusedReport(assignment=assignment, reason=REFUSAL_REASON_INVALID)
        self.tries += [try_row(tried, epoch, self._stamp) for tried in tries]
        self._add_approvals(request_id, report)
        self._add_limits(request_id, report)
        tasks = report.finished_tasks if report.HasField("finished_tasks") else None
        if row["is_suspect"]:
            self._update_suspect(runner_id, report)
        if row["has_finally"] and any(tried.must_fail for tried in tries):
            must_fail(self._rows, row)
        if end == "suspended":
            set_suspended(self._rows, request_id, report.finished_jobs, tasks)
            self.suspended.append((request_id, write.suspended[request_id], epoch))
        elif end == "finish":
            self._rows.change(
                request_id,
                state=report.finish.state,
                finished_at=microseconds_of(report.finish.finished_at),
                finished_jobs=report.finished_jobs,
                finished_tasks=tasks,
                jr_url=None,
            )
            if epoch > 1:  # It may have been resumed from a suspended chain that was kept.
                self._rows.drop_suspended(request_id, for_good=True)
        elif (row["finished_jobs"], row["finished_tasks"]) != (report.finished_jobs, tasks):
            if tries:
                self._rows.set_progress(request_id, report.finished_jobs, tasks)
            else:
                self._rows.change(request_id, finished_jobs=report.finished_jobs, finished_tasks=tasks)
        return None

    def _add_approvals(self, request_id: str, report: ChainReport) -> None:
        if report.opened:
            self.opened += [(request_id, one) for one in report.opened]
            self._rows.change(request_id)  # Watchers see what the request waits for.
        for tried in report.tries:
            if tried.is_approval:
                self.ended_waits.append(WaitKey(request_id, tried.entry.job_id, getattr(tried.entry, "try")))

    def _add_limits(self, request_id: str, report: ChainReport) -> None:
        if report.limit_changes:
            self.limits.append(report)
            # The end of the request releases its keys. Watchers see what it waits for.
            self._rows.change(request_id, has_limits=True)

    def _update_suspect(self, runner_id: str, report: ChainReport) -> None:
        request_id = report.assignment.request_id
        if report.cleared or report.HasField("suspended"):
            self._rows.suspects.cleared(request_id)
            self._rows.change(request_id, is_suspect=None)
        else:
            self._rows.suspects.reported(request_id, runner_id, report)


def _is_repeated_end(row: Mapping[str, Any], runner_id: str, report: ChainReport) -> bool:
    """Whether the report ends an assignment that has already ended this way: a repeated message."""
    if row["epoch"] != report.assignment.epoch:
        return False
    end = report.WhichOneof("end")
    if end == "suspended":
        return bool(row["state"] == State.SUSPENDED)
    return end == "finish" and row["runner_id"] == runner_id and bool(row["state"] == report.finish.state)


def _is_valid(report: ChainReport, request_id: str, tries: Iterable[TryReport], end: str | None) -> bool:
    if end == "finish" and report.finish.state not in FINAL_STATES:
        return False
    for tried in tries:
        entry = tried.entry
        if (
            entry.request_id != request_id
            or not JOB_ID.fullmatch(entry.job_id)
            or not 0 < getattr(entry, "try") <= MAX_TRY
        ):
            return False
    return all(map(is_valid_opening, report.opened)) and are_valid_changes(report.limit_changes)
