"""Rows of requests that a transaction locks, changes in memory and writes back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import bindparam, delete, select, update

from spincycle_grpc.state import FINAL_STATES, State
from spincycle_server.database.clock import database_now
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store.audit import EventRow, record_events
from spincycle_server.store.leases import live_leases
from spincycle_server.store.rows import trace_of
from spincycle_server.store.schema import requests, suspended_job_chains
from spincycle_server.store.suspects import SuspectRows
from spincycle_server.telemetry.requests import RequestEnded, RequestStarted
from spincycle_server.telemetry.spans_of_requests import EndedRequest
from spincycle_server.telemetry.trace_lines import trace_lines

_ROW_COLUMNS = (
    requests.c.request_id,
    requests.c.type,
    requests.c.created_at,
    requests.c.state,
    requests.c.epoch,
    requests.c.runner_id,
    requests.c.jr_url,
    requests.c.started_at,
    requests.c.finished_at,
    requests.c.finished_jobs,
    requests.c.finished_tasks,
    requests.c.stop_requested,
    requests.c.is_suspect,
    requests.c.paused_at,
    requests.c.paused_by,
    requests.c.pause_now,
    requests.c.change_stamp,
    requests.c.trace_context,
)
"""The key, the columns that may change, and those that count for the metrics."""


_UPDATE = RowStatement(
    lambda _: (
        update(requests)
        .where(requests.c.request_id == bindparam("key"))
        .values(
            state=bindparam("new_state"),
            epoch=bindparam("new_epoch"),
            runner_id=bindparam("new_runner_id"),
            jr_url=bindparam("new_jr_url"),
            started_at=bindparam("new_started_at"),
            finished_at=bindparam("new_finished_at"),
            finished_jobs=bindparam("new_finished_jobs"),
            finished_tasks=bindparam("new_finished_tasks"),
            stop_requested=bindparam("new_stop_requested"),
            is_suspect=bindparam("new_is_suspect"),
            change_stamp=bindparam("new_change_stamp"),
            # In old MySQL tables, the first TIMESTAMP column changes with each update of the row.
            created_at=requests.c.created_at,
        )
    )
)


_UPDATE_PAUSE = RowStatement(
    lambda _: (
        update(requests)
        .where(requests.c.request_id == bindparam("key"))
        .values(
            paused_at=bindparam("new_paused_at"),
            paused_by=bindparam("new_paused_by"),
            pause_now=bindparam("new_pause_now"),
            created_at=requests.c.created_at,
        )
    )
)
"""A statement of its own, so that requests that are never paused do not pay for the columns."""


_DELETE_SUSPENDED = delete(suspended_job_chains).where(suspended_job_chains.c.request_id == bindparam("key"))


_DELETE_RESUMED = _DELETE_SUSPENDED.where(suspended_job_chains.c.is_dropped.is_(True))


class RequestRows:
    """The locked rows of some requests. Changes are made in memory until `save` writes them."""

    def __init__(self, transaction: Transaction, request_ids: Iterable[str]) -> None:
        self._transaction = transaction
        query = (
            select(*_ROW_COLUMNS)
            .where(requests.c.request_id.in_(sorted(set(request_ids))))
            # All transactions take locks in the same order, because otherwise they could deadlock.
            .order_by(requests.c.request_id)
            .with_for_update()
        )
        self._rows: dict[str, dict[str, Any]] = {
            row.request_id: dict(row._mapping) for row in transaction.execute(query)
        }
        for request_id, row in self._rows.items():
            if row["trace_context"] is not None and (trace := trace_of(row["trace_context"])) is not None:
                trace_lines.add(request_id, trace)
        self._changed: dict[str, dict[str, Any]] = {}
        self._dropped: list[str] = []
        self._resumed: list[str] = []
        self._pauses: dict[str, dict[str, Any]] = {}
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
        """Changes columns of a row, and stamps it. A request that ends is no longer a suspect."""
        row = self._rows[request_id]
        self._count(row, values)
        row.update(values, change_stamp=self._transaction.stamp)
        if row["is_suspect"] and row["state"] in FINAL_STATES:
            row["is_suspect"] = None
            self.suspects.cleared(request_id)
        if row["paused_at"] is not None and row["state"] in FINAL_STATES:
            row.update(paused_at=None, paused_by=None, pause_now=None)
            self._pauses[request_id] = row
        self._changed[request_id] = row

    def _count(self, before: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Notes a start or an end of a request, which is counted once it is committed."""
        state = values.get("state")
        if state in FINAL_STATES and before["state"] not in FINAL_STATES:
            taken = ((values.get("finished_at") or before["created_at"]) - before["created_at"]) / 1e6
            traced = _traced_end({**before, **values}) if before["trace_context"] is not None else None
            self._transaction.events.append(RequestEnded(before["type"], State(state).name, taken, traced))
        elif before["started_at"] is None and values.get("started_at") is not None:
            waited = (values["started_at"] - before["created_at"]) / 1e6
            self._transaction.events.append(RequestStarted(before["type"], waited))

    def set_pause(self, request_id: str, at: int | None, by: str | None, *, stops_jobs: bool | None) -> None:
        """Marks a request as paused."""
        self._pauses[request_id] = self._rows[request_id]
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
        self._changed[request_id] = row

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
        if self._changed:
            self._transaction.change(
                _UPDATE,
                [
                    {
                        "key": row["request_id"],
                        "new_state": row["state"],
                        "new_epoch": row["epoch"],
                        "new_runner_id": row["runner_id"],
                        "new_jr_url": row["jr_url"],
                        "new_started_at": row["started_at"],
                        "new_finished_at": row["finished_at"],
                        "new_finished_jobs": row["finished_jobs"],
                        "new_finished_tasks": row["finished_tasks"],
                        "new_stop_requested": row["stop_requested"],
                        "new_is_suspect": row["is_suspect"],
                        "new_change_stamp": row["change_stamp"],
                    }
                    for row in self._changed.values()
                ],
            )
        if self._pauses:
            self._save_pauses()
        record_events(self._transaction, self._events)
        if self._suspects is not None:
            self._suspects.save()
        if self._dropped:
            self._transaction.execute(_DELETE_SUSPENDED, [{"key": key} for key in self._dropped])
        if self._resumed:
            self._transaction.execute(_DELETE_RESUMED, [{"key": key} for key in self._resumed])

    def _save_pauses(self) -> None:
        self._transaction.change(
            _UPDATE_PAUSE,
            [
                {
                    "key": row["request_id"],
                    "new_paused_at": row["paused_at"],
                    "new_paused_by": row["paused_by"],
                    "new_pause_now": row["pause_now"],
                }
                for row in self._pauses.values()
            ],
        )
        if self._suspended_again:
            self._transaction.execute(
                update(suspended_job_chains)
                .where(suspended_job_chains.c.request_id.in_(sorted(self._suspended_again)))
                .values(suspended_at=database_now(self._transaction.connection))
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
        row["finished_at"],
        trace,
    )
