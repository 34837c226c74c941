"""Suspects: RUNNING requests whose runner died, perhaps because of one of their jobs.

When a request is taken over from a dead runner, it becomes a suspect. Its new runner records each try that
may be to blame before it starts, and runs such tries in turns. If a runner dies while such a try is recorded,
that is a crash of the request. A finished try resets the crashes. After `job_runner.max_crashes` crashes in a
row, the runner lets the request fail.

Crashes are stored as the ids of the runners. So a crash is taken back if the runner is alive after all: it
was frozen or cut off.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, insert, or_, select, update
from sqlalchemy.engine import Connection

from spincycle_grpc.state import State
from spincycle_grpc.v1.runner_reports_pb2 import ChainReport
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.schema import MAX_CRASHED, MAX_STARTED, suspects

_KEPT_CRASHES = MAX_CRASHED // 21

_UPDATE = (
    update(suspects)
    .where(suspects.c.request_id == bindparam("key"))
    .values(
        {
            column: bindparam(f"new_{column.name}")
            for column in suspects.c
            if column is not suspects.c.request_id
        }
    )
)
_DELETE = delete(suspects).where(suspects.c.request_id == bindparam("key"))


@dataclass(frozen=True, slots=True)
class StoredSuspect:
    """What is known of a suspect.

    Attributes:
        crashed_runners: The ids of the runners that died in a row while a recorded try ran, the oldest first.
        job_id: The job that the newest of them ran; "" if there is none.
        is_alone: Whether the next tries must run alone.
    """

    crashed_runners: Sequence[str]
    job_id: str
    is_alone: bool


class SuspectRows:
    """The rows of suspects that a transaction reads, changes in memory and writes back.

    The caller holds the lock of each request's row. Rows are read when the first suspect is touched, so a
    transaction without suspects has no statement for them.
    """

    def __init__(self, transaction: Transaction, request_ids: Collection[str]) -> None:
        self._transaction = transaction
        self._request_ids = request_ids
        self._loaded: dict[str, dict[str, Any]] | None = None
        self._stored: set[str] = set()
        self._changed: set[str] = set()
        self._deleted: set[str] = set()
        self._shared: list[dict[str, str]] = []

    def taken_over(self, request_id: str, runner_id: str) -> None:
        """Makes a request a suspect, because its runner died. Counts a crash if a recorded try ran."""
        row = self._row(request_id)
        started = row["started"].split()
        if started and row["runner_id"] == runner_id:
            if row["is_shared"]:
                row["is_alone"] = True
            else:
                crashed = [*row["crashed_runners"].split(), runner_id]
                row["crashed_runners"] = " ".join(crashed[-_KEPT_CRASHES:])
                row["crashed_job"] = started[-1].partition(":")[0]
        row["started"] = ""

    def assigned(self, request_id: str) -> None:
        """Notes that a suspect has a new assignment although its runner did not die."""
        self._row(request_id)["started"] = ""

    def reported(self, request_id: str, runner_id: str, report: ChainReport) -> None:
        """Takes in the started and finished tries of a report."""
        row = self._row(request_id)
        started = row["started"].split() if row["runner_id"] == runner_id else []
        if report.started:
            started += [f"{one.job_id}:{getattr(one, 'try')}" for one in report.started]
            is_shared = any(one.shared for one in report.started)
            row["is_shared"] = is_shared or (row["is_shared"] and row["runner_id"] == runner_id)
            row["runner_id"] = runner_id
            if is_shared:
                self._shared.append({"on_runner": runner_id, "other": request_id})
        ended = {f"{tried.entry.job_id}:{getattr(tried.entry, 'try')}" for tried in report.tries}
        row["started"] = " ".join(dict.fromkeys(one for one in started if one not in ended))[:MAX_STARTED]
        if any(State(tried.entry.state) in (State.COMPLETE, State.FAIL) for tried in report.tries):
            row["crashed_runners"] = row["crashed_job"] = ""

    def cleared(self, request_id: str) -> None:
        """Forgets a request that is no longer a suspect."""
        self._deleted.add(request_id)

    def save(self) -> None:
        """Writes the changed rows."""
        rows = self._loaded or {}
        changed = [rows[key] for key in sorted(self._changed - self._deleted)]
        if updated := [row for row in changed if row["request_id"] in self._stored]:
            self._transaction.execute(_UPDATE, [_parameters(row) for row in updated])
        if inserted := [row for row in changed if row["request_id"] not in self._stored]:
            self._transaction.execute(insert(suspects), inserted)
        if self._shared:
            self._transaction.execute(_SHARE, self._shared)
        if self._deleted:
            self._transaction.execute(_DELETE, [{"key": key} for key in sorted(self._deleted)])

    def _row(self, request_id: str) -> dict[str, Any]:
        if self._loaded is None:
            query = select(suspects).where(suspects.c.request_id.in_(sorted(self._request_ids)))
            self._loaded = {
                row.request_id: dict(row._mapping)
                for row in self._transaction.execute(query.with_for_update())
            }
            self._stored = set(self._loaded)
        self._changed.add(request_id)
        return self._loaded.setdefault(request_id, _new_row(request_id))


_SHARE = (
    update(suspects)
    .where(
        suspects.c.runner_id == bindparam("on_runner"),
        suspects.c.started != "",
        suspects.c.request_id != bindparam("other"),
    )
    .values(is_shared=True)
)


def take_back_crashes(transaction: Transaction, runner_ids: Collection[str]) -> None:
    """Takes back the crashes of runners that are alive after all."""
    is_named = [suspects.c.crashed_runners.contains(runner_id) for runner_id in runner_ids]
    found = transaction.execute(select(suspects).where(or_(*is_named)).with_for_update()).all()
    for row in found:
        crashed = [one for one in row.crashed_runners.split() if one not in runner_ids]
        changed = dict(row._mapping) | {"crashed_runners": " ".join(crashed)}
        transaction.execute(_UPDATE, [_parameters(changed)])


def get_suspect(connection: Connection, request_id: str) -> StoredSuspect:
    """Returns what is known of a suspect."""
    row = connection.execute(select(suspects).where(suspects.c.request_id == request_id)).one_or_none()
    if row is None:
        return StoredSuspect((), "", is_alone=False)
    return StoredSuspect(row.crashed_runners.split(), row.crashed_job, row.is_alone)


def _new_row(request_id: str) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "runner_id": "",
        "started": "",
        "is_shared": False,
        "is_alone": False,
        "crashed_runners": "",
        "crashed_job": "",
    }


def _parameters(row: dict[str, Any]) -> dict[str, Any]:
    return {"key" if name == "request_id" else f"new_{name}": value for name, value in row.items()}
