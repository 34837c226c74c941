"""Writes of what runners report: tries, progress, ends of chains, and that the runners live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from sqlalchemy import bindparam, delete, insert, select, update

from spincycle_grpc.errors import FailedPreconditionError, SpinCycleError
from spincycle_grpc.state import FINAL_STATES, State
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
from spincycle_server.database.clock import database_now
from spincycle_server.database.dialects import insert_ignoring
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store.group_commit import Write
from spincycle_server.store.request_writes import RequestRows, not_found, wrong_state
from spincycle_server.store.rows import microseconds_of
from spincycle_server.store.schema import MAX_TRY, job_log, requests, runners, suspended_job_chains

_RUNNER_KEPT = 86_400_000_000
"""Microseconds that the row of a runner that died is kept."""

_UPDATE_RUNNER = (
    update(runners)
    .where(runners.c.runner_id == bindparam("new_runner_id"))
    .values(
        url=bindparam("new_url"),
        grpc_address=bindparam("new_grpc_address"),
        draining=bindparam("new_draining"),
        lease_expires_at=bindparam("new_lease_expires_at"),
    )
)
_INSERT_TRY = RowStatement(lambda dialect_name: insert_ignoring(dialect_name, job_log))


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
        cls, transaction: Transaction, writes: Sequence[RecordLog]
    ) -> Sequence[SpinCycleError | None]:
        """One statement to see which requests there are, one to insert."""
        ids = {write.entry.request_id for write in writes}
        known = set(
            transaction.execute(select(requests.c.request_id).where(requests.c.request_id.in_(ids))).scalars()
        )
        rows = [log_row(write.entry) for write in writes if write.entry.request_id in known]
        transaction.change(_INSERT_TRY, rows)
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
    def apply_all(
        cls, transaction: Transaction, writes: Sequence[Suspend]
    ) -> Sequence[SpinCycleError | None]:
        """Reads all rows, then writes states and chains."""
        rows = RequestRows(transaction, (write.request_id for write in writes))
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
        _save_suspended(transaction, stored)
        rows.save()
        return results


@dataclass(slots=True)
class ApplyReports(Write):
    """What one message of a runner says. Result: the list of RefusedReport."""

    order: ClassVar[int] = 9
    is_reserved: ClassVar[bool] = True
    runner_id: str
    reports: Sequence[ChainReport]

    @classmethod
    def apply_all(
        cls, transaction: Transaction, writes: Sequence[ApplyReports]
    ) -> Sequence[list[RefusedReport]]:
        """Reads the requests' rows, decides which reports count, and writes all of them together."""
        rows = RequestRows(
            transaction, (report.assignment.request_id for write in writes for report in write.reports)
        )
        batch = _ReportBatch(rows)
        results = [
            [refusal for report in write.reports if (refusal := batch.add(write.runner_id, report))]
            for write in writes
        ]
        transaction.change(_INSERT_TRY, batch.tries)
        _save_suspended(transaction, batch.suspended)
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
    if report.WhichOneof("end") == "finish" and report.finish.state not in FINAL_STATES:
        return False
    return all(
        tried.entry.request_id == report.assignment.request_id
        and len(tried.entry.job_id) == 4
        and 0 < getattr(tried.entry, "try") <= MAX_TRY
        for tried in report.tries
    )


def _set_suspended(rows: RequestRows, request_id: str, finished_jobs: int) -> None:
    rows.change(request_id, state=State.SUSPENDED, jr_url=None, finished_jobs=finished_jobs)


def _save_suspended(transaction: Transaction, chains: Sequence[_Suspended]) -> None:
    if not chains:
        return
    now = database_now(transaction.connection)
    ids = [request_id for request_id, _, _ in chains]
    kept = set(
        transaction.execute(
            select(suspended_job_chains.c.request_id).where(
                suspended_job_chains.c.request_id.in_(ids), suspended_job_chains.c.is_dropped.is_not(True)
            )
        ).scalars()
    )
    transaction.execute(delete(suspended_job_chains).where(suspended_job_chains.c.request_id.in_(ids)))
    transaction.execute(
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


@dataclass(frozen=True, slots=True)
class Renewal:
    """A lease as it was renewed.

    Attributes:
        token: Which renewal it is, for the next one of the same stream.
        others: The runners that have the same address in the database.
    """

    token: int
    others: tuple[str, ...]


@dataclass(slots=True)
class RenewRunner(Write):
    """Makes a runner live on for a while. Result: a Renewal, or an error where another stream renewed it.

    A stream's first renewal has no token. Later ones have that of the renewal before: what a Request
    Manager that was frozen still has of a stream must not stand against what came on a newer one.
    """

    order: ClassVar[int] = 1
    is_reserved: ClassVar[bool] = True
    runner: RunnerInfo
    lease: float
    draining: bool
    token: int | None = None

    @classmethod
    def apply_all(
        cls, transaction: Transaction, writes: Sequence[RenewRunner]
    ) -> Sequence[Renewal | FailedPreconditionError]:
        """Locks the rows of the runners, and writes those whose tokens fit."""
        ids = sorted({write.runner.runner_id for write in writes})
        rows = transaction.execute(
            select(runners.c.runner_id, runners.c.lease_expires_at)
            .where(runners.c.runner_id.in_(ids))
            .order_by(runners.c.runner_id)
            .with_for_update()
        )
        known = {row.runner_id: row.lease_expires_at for row in rows}
        tokens: dict[str, int] = dict(known)
        now = database_now(transaction.connection)
        changed: dict[str, dict[str, Any]] = {}
        renewed: list[int | None] = []
        for write in writes:
            runner_id = write.runner.runner_id
            before = tokens.get(runner_id)
            if write.token is not None and write.token != before:
                renewed.append(None)
                continue
            token = now + int(write.lease * 1_000_000)
            # Each token is another one; a microsecond more is less than it took to come here.
            tokens[runner_id] = token = token + 1 if token == before else token
            renewed.append(token)
            changed[runner_id] = {
                "runner_id": runner_id,
                "url": write.runner.url,
                "grpc_address": write.runner.grpc_address,
                "draining": write.draining,
                "lease_expires_at": token,
            }
        _save_runners(transaction, known, changed, now)
        others = _others_at(transaction, [write.runner.grpc_address for write in writes])
        return [
            _superseded(write.runner.runner_id)
            if token is None
            else Renewal(
                token, tuple(others.get(write.runner.grpc_address, set()) - {write.runner.runner_id})
            )
            for write, token in zip(writes, renewed, strict=True)
        ]


def _save_runners(
    transaction: Transaction,
    known: Mapping[str, int],
    changed: Mapping[str, Mapping[str, Any]],
    now: int,
) -> None:
    updated = [row for runner_id, row in changed.items() if runner_id in known]
    if updated:
        transaction.execute(
            _UPDATE_RUNNER, [{f"new_{name}": value for name, value in row.items()} for row in updated]
        )
    inserted = [row for runner_id, row in changed.items() if runner_id not in known]
    if inserted:
        transaction.execute(delete(runners).where(runners.c.lease_expires_at < now - _RUNNER_KEPT))
        transaction.execute(insert(runners), inserted)


def _others_at(transaction: Transaction, addresses: Sequence[str]) -> dict[str, set[str]]:
    """Returns the ids of the runners that have the addresses, by address."""
    found: dict[str, set[str]] = {}
    query = select(runners.c.runner_id, runners.c.grpc_address).where(runners.c.grpc_address.in_(addresses))
    for row in transaction.execute(query):
        found.setdefault(row.grpc_address, set()).add(row.runner_id)
    return found


def _superseded(runner_id: str) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"job runner {runner_id} reports on a newer stream: this one is over", reason="STREAM_SUPERSEDED"
    )


@dataclass(slots=True)
class RemoveRunner(Write):
    """Ends the lease of a runner that has left. Result: None."""

    order: ClassVar[int] = 10
    is_reserved: ClassVar[bool] = True
    runner_id: str

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[RemoveRunner]) -> Sequence[None]:
        """One statement."""
        transaction.execute(delete(runners).where(runners.c.runner_id.in_([one.runner_id for one in writes])))
        return [None] * len(writes)
