"""Retention: deletes requests that ended long ago, with all their rows, in small transactions.

Servers can run meanwhile: each transaction deletes a bounded number of rows, and locks only rows of ended
requests. After each transaction there is a pause as long as the transaction took. If retention is
interrupted, the next run continues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from sqlalchemy import BigInteger, ColumnElement, and_, delete, func, insert, literal, select, tuple_
from sqlalchemy.engine import Connection

from spincycle_grpc.state import FINAL_STATES, State
from spincycle_server.database.clock import database_now, now_expression
from spincycle_server.database.engine import DatabaseOptions
from spincycle_server.database.transaction import Transaction
from spincycle_server.maintenance.audit import AuditTable
from spincycle_server.maintenance.batches import delete_in_batches
from spincycle_server.maintenance.operator_database import OperatorDatabase
from spincycle_server.store.limit_ledger import ledger_of, settle
from spincycle_server.store.positions import MAX_AGE
from spincycle_server.store.schema import (
    approval_decisions,
    approvals,
    deleted_requests,
    deliveries,
    idempotency_keys,
    job_chain_pages,
    job_log,
    limit_claims,
    limits,
    request_archives,
    request_args,
    requests,
    sequence_claims,
    suspended_job_chains,
)
from spincycle_server.store.writer_row import PRUNE_PREFIX, WriterRow

MAX_REQUESTS = 50
"""The maximum number of requests that one transaction deletes."""

MAX_LOG_ENTRIES = 500
"""The maximum number of job log entries per transaction. A larger log takes several transactions."""

_TABLES = (
    job_chain_pages,
    request_archives,
    request_args,
    suspended_job_chains,
    approval_decisions,
    approvals,
    sequence_claims,
    requests,
)


class _Batch(NamedTuple):
    requests: int
    log_entries: int


class Retention(OperatorDatabase):
    """Deletes old requests from a database.

    Args:
        url: The database.
        options: How to connect.

    Attributes:
        audit: The audit log of the database.

    Raises:
        InvalidArgumentError: The URL is invalid or names an unsupported database.
    """

    def __init__(self, url: str, options: DatabaseOptions) -> None:
        super().__init__(url, options)
        self.audit = AuditTable(self.engine, patience=self._patience)

    def cutoff(self, age: int) -> int:
        """Returns the time `age` microseconds ago, by the database's clock."""
        return self.now() - age

    def count(self, before: int) -> dict[State, int]:
        """Returns how many requests ended before a time, by final state.

        Args:
            before: The time in microseconds since the Unix epoch.
        """
        return self._read(partial(_count, before=before))

    def prune(
        self, before: int, progress: Callable[[int, int], None], is_interrupted: Callable[[], bool]
    ) -> bool:
        """Deletes the requests that ended before a time, oldest first.

        Args:
            before: The time in microseconds since the Unix epoch.
            progress: Called after each transaction with the numbers of deleted requests and log entries.
            is_interrupted: Called between transactions; returns whether to stop.

        Returns:
            Whether all such requests are deleted; False if the run was interrupted.

        Raises:
            UnavailableError: The database cannot be used. Everything that was reported to `progress` is
                deleted.
        """

        def show(batch: _Batch) -> None:
            progress(batch.requests, batch.log_entries)

        # Watchers learn of deleted requests as of other changes: by the stamps of a writer.
        writer = WriterRow(self.engine, PRUNE_PREFIX)
        writer.next_batch()
        self._write(writer.write)
        # Keys first: no idempotency key and no claim may refer to a deleted request.
        return all(
            delete_in_batches(self.engine, delete_batch, show, is_interrupted, patience=self._patience)
            for delete_batch in (
                partial(_delete_keys, before=before),
                partial(_release_limits, before=before, writer=writer),
                partial(_delete_requests, before=before, writer=writer),
                _forget_deleted,
            )
        )


def _has_ended(before: int) -> ColumnElement[bool]:
    return and_(requests.c.finished_at < before, requests.c.state.in_(FINAL_STATES))


def _count(connection: Connection, before: int) -> dict[State, int]:
    query = select(requests.c.state, func.count()).where(_has_ended(before)).group_by(requests.c.state)
    return {State(row[0]): int(row[1]) for row in connection.execute(query)}


def _delete_keys(connection: Connection, before: int) -> _Batch | None:
    """Deletes idempotency keys of requests that will be deleted. Returns None if there are none."""
    keys = connection.scalars(
        select(idempotency_keys.c.key_hash)
        .join(requests, requests.c.request_id == idempotency_keys.c.request_id)
        .where(_has_ended(before))
        .limit(MAX_LOG_ENTRIES)
    ).all()
    if not keys:
        return None
    connection.execute(delete(idempotency_keys).where(idempotency_keys.c.key_hash.in_(keys)))
    return _Batch(0, 0)


def _forget_deleted(connection: Connection) -> _Batch | None:
    """Forgets requests that were deleted so long ago that no watcher can ask for them."""
    ids = connection.scalars(
        select(deleted_requests.c.request_id)
        .where(deleted_requests.c.deleted_at < database_now(connection) - MAX_AGE)
        .limit(MAX_LOG_ENTRIES)
    ).all()
    if not ids:
        return None
    connection.execute(delete(deleted_requests).where(deleted_requests.c.request_id.in_(ids)))
    return _Batch(0, 0)


def _release_limits(connection: Connection, before: int, writer: WriterRow) -> _Batch | None:
    """Releases keys of limits that old requests still hold. Returns None if there are none.

    Who ended such a request does not know limits. The next request starts, which is a change with a stamp.
    """
    ids = connection.scalars(
        select(limit_claims.c.request_id)
        .distinct()
        .join(requests, requests.c.request_id == limit_claims.c.request_id)
        .join(limits, limits.c.limit_id == limit_claims.c.limit_id)
        .where(_has_ended(before))
        .limit(MAX_REQUESTS)
    ).all()
    if not ids:
        return None
    writer.next_batch()
    transaction = Transaction(connection, writer.stamp)
    for request_id in ids:
        ledger_of(transaction).release(request_id)
    settle(transaction, database_now(connection))
    writer.store_number(transaction)
    transaction.flush()
    return _Batch(0, 0)


def _delete_requests(connection: Connection, before: int, writer: WriterRow) -> _Batch | None:
    """Deletes some requests, or a part of their logs. Returns what it deleted; None if there was nothing."""
    ids = connection.scalars(
        select(requests.c.request_id)
        .where(_has_ended(before))
        .order_by(requests.c.finished_at)
        .limit(MAX_REQUESTS)
    ).all()
    if not ids:
        return None
    # Check again under locks, because another transaction may have changed a request.
    ended = connection.scalars(
        select(requests.c.request_id)
        .where(requests.c.request_id.in_(ids), _has_ended(before))
        .order_by(requests.c.request_id)
        .with_for_update()
    ).all()
    entries = connection.execute(
        select(job_log.c.request_id, job_log.c.job_id, job_log.c["try"])
        .where(job_log.c.request_id.in_(ended))
        .order_by(job_log.c.request_id, job_log.c.job_id, job_log.c["try"])
        .limit(MAX_LOG_ENTRIES + 1)
    ).all()
    is_rest = len(entries) <= MAX_LOG_ENTRIES
    # Delete whole requests up to the limit. A larger log is deleted in parts before its request.
    done = ended if is_rest else [one for one in ended if one < entries[-1].request_id]
    _delete_entries(connection, [tuple(entry) for entry in entries[:MAX_LOG_ENTRIES]])
    if done:
        _remember(connection, done, writer)
        # One that waits is sent nevertheless. Request Managers delete it some time after its end.
        is_ended = deliveries.c.ended_at.is_not(None)
        connection.execute(delete(deliveries).where(deliveries.c.request_id.in_(done), is_ended))
        for table in _TABLES:
            connection.execute(delete(table).where(table.c.request_id.in_(done)))
    return _Batch(len(done), min(len(entries), MAX_LOG_ENTRIES))


def _remember(connection: Connection, request_ids: Sequence[str], writer: WriterRow) -> None:
    """Stores the ids of requests that are being deleted, for their watchers.

    If the transaction is repeated, it has another number: it may be committed although its answer was lost.
    """
    writer.next_batch()
    transaction = Transaction(connection, writer.stamp)
    deleted = select(
        requests.c.request_id,
        requests.c.type,
        requests.c.user,
        literal(transaction.stamp, BigInteger),
        now_expression(connection),
    ).where(requests.c.request_id.in_(request_ids))
    names = ["request_id", "type", "user", "change_stamp", "deleted_at"]
    connection.execute(insert(deleted_requests).from_select(names, deleted))
    writer.store_number(transaction)
    transaction.flush()


def _delete_entries(connection: Connection, keys: Sequence[tuple[str, str, int]]) -> None:
    if keys:
        key = tuple_(job_log.c.request_id, job_log.c.job_id, job_log.c["try"])
        # With the second condition alone, PostgreSQL takes twice as long.
        ids = {request_id for request_id, _, _ in keys}
        connection.execute(delete(job_log).where(job_log.c.request_id.in_(ids), key.in_(keys)))
