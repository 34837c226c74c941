"""Rows of requests that a transaction locks, changes in memory and writes back."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Column, bindparam, delete, select, update

from spincycle_grpc.state import FINAL_STATES, State
from spincycle_server.database.clock import database_now
from spincycle_server.database.keyed_read import KeyedRead
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store.audit import EventRow, record_events
from spincycle_server.store.leases import live_leases
from spincycle_server.store.limit_ledger import ledger_of
from spincycle_server.store.rows import trace_of
from spincycle_server.store.schema import requests, suspended_job_chains
from spincycle_server.store.suspects import SuspectRows
from spincycle_server.telemetry.requests import RequestEnded, RequestStarted
from spincycle_server.telemetry.spans_of_requests import EndedRequest
from spincycle_server.telemetry.trace_lines import trace_lines

_COLUMNS = (
    requests.c.request_id,
    requests.c.type,
    requests.c.created_at,
    requests.c.state,
    requests.c.epoch,
    requests.c.runner_id,
    requests.c.started_at,
    requests.c.finished_jobs,
    requests.c.finished_tasks,
    requests.c.stop_requested,
    requests.c.is_suspect,
    requests.c.paused_at,
    requests.c.paused_by,
    requests.c.pause_now,
    requests.c.trace_context,
    requests.c.has_limits,
    requests.c.has_finally,
    requests.c.ending,
    requests.c.skip_finally,
)
"""The key, and the columns that decide about changes or count for the metrics."""

_UNREPORTED = (
    requests.c.started_at,
    requests.c.stop_requested,
    requests.c.paused_by,
    requests.c.pause_now,
    requests.c.skip_finally,
)
"""The columns that no report of a runner needs. Reports are frequent, and each column takes time to read."""


def _read(columns: Iterable[Column[Any]]) -> KeyedRead:
    """Returns the statement that reads some columns of rows and locks these."""
    # All transactions take locks in the same order, because otherwise they could deadlock.
    query = select(*columns).order_by(requests.c.request_id).with_for_update()
    return KeyedRead(lambda _: query, requests.c.request_id)


_READ = _read(_COLUMNS)
_READ_FOR_REPORTS = _read(column for column in _COLUMNS if column not in set(_UNREPORTED))


_STATE_NAMES = {state.value: state.name for state in State}


class _Update:
    """The statement that changes some columns of a row.

    Args:
        columns: The names of the columns.
    """

    def __init__(self, columns: Iterable[str]) -> None:
        self._parameters = [(column, f"new_{column}") for column in columns]
        values: dict[str, Any] = {column: bindparam(name) for column, name in self._parameters}
        # In old MySQL tables, the first TIMESTAMP column changes with each update of the row.
        values["created_at"] = requests.c.created_at
        changed = update(requests).where(requests.c.request_id == bindparam("key")).values(values)
        self.statement = RowStatement(lambda _: changed, key="key")

    def parameters(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the parameters of the statement for a row."""
        parameters = {name: row[column] for column, name in self._parameters}
        parameters["key"] = row["request_id"]
        return parameters


@functools.cache
def _update_of(columns: frozenset[str]) -> _Update:
    """Returns the statement that changes some columns. There are as many as there are kinds of changes."""
    return _Update(sorted(columns))


_PROGRESS = frozenset({"finished_jobs", "finished_tasks"})


_DELETE_SUSPENDED = delete(suspended_job_chains).where(suspended_job_chains.c.request_id == bindparam("key"))


_DELETE_RESUMED = _DELETE_SUSPENDED.where(suspended_job_chains.c.is_dropped.is_(True))


class RequestRows:
    """The locked rows of some requests. Changes are made in memory until `save` writes them.

    Args:
        transaction: The open transaction.
        request_ids: The ids of the requests.
        for_reports: Whether only reports of runners change the rows, so that `_UNREPORTED` is not read.
    """

    def __init__(
        self, transaction: Transaction, request_ids: Iterable[str], *, for_reports: bool = False
    ) -> None:
        self._transaction = transaction
        read = _READ_FOR_REPORTS if for_reports else _READ
        found = read.rows(transaction, sorted(set(request_ids)))
        self._rows = {row["request_id"]: row for row in found}
        for request_id, row in self._rows.items():
            if row["trace_context"] is not None and (trace := trace_of(row["trace_context"])) is not None:
                trace_lines.add(request_id, trace)
        self._changed: dict[str, frozenset[str]] = {}
        self._dropped: list[str] = []
        self._resumed: list[str] = []
        self._suspended_again: list[str] = []
        self._events: list[EventRow] = []
        self._live_runners: dict[str, int] | None = None
        self._suspects: SuspectRows | None = None

    @property
    def suspects(self) -> SuspectRows:
        """The rows of the suspects among the requests."""
        if self._suspects is None:
            self._suspects = SuspectRows(self._transaction, self._rows)
        return self._suspects

    def get(self, request_id: str) -> Mapping[str, Any] | None:
        """Returns a row with the changes so far; None if the request does not exist."""
        return self._rows.get(request_id)

    def live_runners(self) -> Mapping[str, int]:
        """Returns when each current lease expires, by runner id.

        The leases are read while the rows are locked. So if a lease is renewed later, the runner's reports
        wait for this transaction.
        """
        if self._live_runners is None:
            self._live_runners = live_leases(self._transaction)
        return self._live_runners

    def change(self, request_id: str, **values: Any) -> None:
        """Changes columns of a row, and stamps it.

        A request that ends is no longer a suspect, and releases the keys of its limits.
        """
        row = self._rows[request_id]
        self._count(row, values)
        values["change_stamp"] = self._transaction.stamp
        if values.get("state", row["state"]) in FINAL_STATES:
            if values.get("is_suspect", row["is_suspect"]):
                values["is_suspect"] = None
                self.suspects.cleared(request_id)
            if values.get("paused_at", row["paused_at"]) is not None:
                values.update(paused_at=None, paused_by=None, pause_now=None)
            if row["has_limits"]:
                ledger_of(self._transaction).release(request_id)
        row.update(values)
        self._note(request_id, frozenset(values))

    def _note(self, request_id: str, columns: frozenset[str]) -> None:
        """Notes which columns of a row have changed."""
        changed = self._changed.get(request_id)
        self._changed[request_id] = columns if changed is None else changed | columns

    def _count(self, before: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Notes a start or an end of a request, which is counted once it is committed.

        Targets of notifications learn of ends by these notes too, see `deliveries`.
        """
        state = values.get("state")
        if state in FINAL_STATES and before["state"] not in FINAL_STATES:
            ended_at = values.get("finished_at") or before["created_at"]
            taken = (ended_at - before["created_at"]) / 1e6
            traced = _traced_end({**before, **values}) if before["trace_context"] is not None else None
            self._transaction.events.append(
                RequestEnded(
                    before["type"], _STATE_NAMES[state], taken, before["request_id"], ended_at, traced
                )
            )
        elif values.get("started_at") is not None and before["started_at"] is None:
            waited = (values["started_at"] - before["created_at"]) / 1e6
            self._transaction.events.append(RequestStarted(before["type"], waited))

    def set_pause(self, request_id: str, at: int | None, by: str | None, *, stops_jobs: bool | None) -> None:
        """Marks a request as paused."""
        self.change(request_id, paused_at=at, paused_by=by, pause_now=stops_jobs)

    def end_pause(self, request_id: str) -> None:
        """Removes the mark of a pause."""
        self.set_pause(request_id, None, None, stops_jobs=None)

    def suspended_again(self, request_id: str) -> None:
        """Counts the time for which a request is SUSPENDED from now on."""
        self._suspended_again.append(request_id)

    def set_progress(self, request_id: str, finished_jobs: int, finished_tasks: int | None) -> None:
        """Sets the numbers of finished jobs and tasks when tries of the request are stored.

        The tries are stamped, so whoever looks for changes finds the request by them. The row is not: that
        would change an index with nearly every report.
        """
        row = self._rows[request_id]
        row["finished_jobs"] = finished_jobs
        row["finished_tasks"] = finished_tasks
        self._note(request_id, _PROGRESS)

    def drop_suspended(self, request_id: str, *, for_good: bool) -> None:
        """Drops the suspended chain of a request, if it has one.

        Args:
            request_id: The request.
            for_good: Whether the request has ended. If it has not, only a chain with `is_dropped` is dropped.
        """
        (self._dropped if for_good else self._resumed).append(request_id)

    def record(self, event: EventRow | None) -> None:
        """Adds the audit event of a change, if it has one."""
        if event is not None:
            self._events.append(event)

    def save(self) -> None:
        """Writes the changed rows and the events."""
        groups: dict[frozenset[str], list[Mapping[str, Any]]] = {}
        for request_id, columns in self._changed.items():
            groups.setdefault(columns, []).append(self._rows[request_id])
        for columns, rows in groups.items():
            changed = _update_of(columns)
            self._transaction.change(changed.statement, [changed.parameters(row) for row in rows])
        if self._suspended_again:
            count_from_now(self._transaction, self._suspended_again)
        record_events(self._transaction, self._events)
        if self._suspects is not None:
            self._suspects.save()
        if self._dropped:
            self._transaction.execute(_DELETE_SUSPENDED, [{"key": key} for key in self._dropped])
        if self._resumed:
            self._transaction.execute(_DELETE_RESUMED, [{"key": key} for key in self._resumed])


def count_from_now(transaction: Transaction, request_ids: Iterable[str]) -> None:
    """Makes the time in which suspended requests must be resumed begin now."""
    transaction.execute(
        update(suspended_job_chains)
        .where(suspended_job_chains.c.request_id.in_(sorted(request_ids)))
        .values(suspended_at=database_now(transaction.connection))
    )


def _traced_end(row: Mapping[str, Any]) -> EndedRequest | None:
    """Returns the end of a request of a trace, from its row as it becomes."""
    trace = trace_of(row["trace_context"])
    if trace is None:
        return None
    return EndedRequest(
        row["request_id"],
        row["type"],
        row["state"],
        row["epoch"],
        row["created_at"],
        row.get("finished_at"),
        trace,
    )
