"""Suspended job chains: store, read and drop them, and fail requests that are not resumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

from sqlalchemy import ColumnElement, delete, insert, select
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import SuspendedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_grpc.wire import decode, encode
from spincycle_server.database.clock import database_now
from spincycle_server.database.transaction import MAX_ROW, Transaction
from spincycle_server.stopped_tries import remove_stopped_tries, with_stopped_tries
from spincycle_server.store.endings import end_after_finally, ending_of
from spincycle_server.store.errors import not_found, wrong_state
from spincycle_server.store.request_rows import RequestRows, count_from_now
from spincycle_server.store.schema import ORIGINAL, job_log, requests, suspended_job_chains
from spincycle_server.store.states import StateWrite, end_unassigned
from spincycle_server.store.write import Write

SuspendedRow: TypeAlias = tuple[str, bytes, int | None]
"""A request id, the JSON of its suspended chain, and the suspended epoch; None without an assignment.

The JSON is empty if the chain is too long to store.
"""


def stored_form(suspended: SuspendedJobChain) -> bytes:
    """Returns the JSON to store of a chain that a runner has suspended; empty if it is too long to store."""
    if suspended.ByteSize() > MAX_ROW:  # The JSON is longer than the message.
        return b""
    return encode(with_stopped_tries(suspended))


@dataclass(slots=True)
class Suspend(Write):
    """Stores a suspended chain and sets its request SUSPENDED. Result: None.

    If `epoch` is given, the request must still have that assignment.
    """

    order: ClassVar[int] = 8
    request_id: str
    suspended: bytes
    finished_jobs: int
    finished_tasks: int
    epoch: int | None = None

    @property
    def request_ids(self) -> Iterable[str]:
        """The request."""
        return (self.request_id,)

    @classmethod
    def apply_all(
        cls, transaction: Transaction, writes: Sequence[Suspend]
    ) -> Sequence[SpinCycleError | None]:
        """Reads all rows, then writes the states and the chains."""
        rows = RequestRows(transaction, (write.request_id for write in writes))
        results: list[SpinCycleError | None] = []
        stored: list[SuspendedRow] = []
        for write in writes:
            row = rows.get(write.request_id)
            if row is None:
                results.append(not_found(write.request_id))
            elif row["state"] != State.RUNNING or write.epoch not in (None, row["epoch"]):
                results.append(wrong_state(write.request_id, row["state"], State.RUNNING))
            else:
                set_suspended(rows, write.request_id, write.finished_jobs, write.finished_tasks)
                if row["is_suspect"]:  # As when a runner suspends it: the next runner begins to count.
                    rows.suspects.cleared(write.request_id)
                    rows.change(write.request_id, is_suspect=None)
                stored.append((write.request_id, write.suspended, write.epoch))
                results.append(None)
        save_suspended(transaction, stored)
        rows.save()
        return results


@dataclass(slots=True)
class DropSuspended(StateWrite):
    """Drops the suspended chain that an assignment resumed. Result: whether the assignment is current."""

    order: ClassVar[int] = 3
    request_id: str
    epoch: int

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> bool:
        """Drops the chain, unless the request has been suspended again."""
        if row["state"] == State.SUSPENDED or row["epoch"] != self.epoch:
            return False
        rows.drop_suspended(self.request_id, for_good=False)
        return True


@dataclass(slots=True)
class FailSuspended(StateWrite):
    """Fails a request that has not been resumed since `epoch` was suspended. Result: whether it happened."""

    order: ClassVar[int] = 4
    request_id: str
    epoch: int
    now: int

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> bool:
        """Sets FAIL, and drops the suspended chain. `finally` parts get as much time again to run first."""
        if row["state"] != State.SUSPENDED or row["epoch"] != self.epoch or row["paused_at"] is not None:
            return False
        if end_after_finally(rows, row, State.FAIL):
            rows.suspended_again(self.request_id)
            return False
        end_unassigned(rows, self.request_id, ending_of(row) or State.FAIL, self.now)
        return True


def get_suspended(connection: Connection, request_id: str) -> SuspendedJobChain | None:
    """Returns the suspended chain of a request; None if it has none, or an outdated one.

    A chain is out of date if a later assignment, now lost, has reported tries: the request then continues
    from its record.
    """
    stored = stored_chain(connection, suspended_job_chains.c.request_id == request_id)
    if stored is None:
        return None
    rows = connection.execute(
        select(job_log.c.job_id, job_log.c["try"], job_log.c.epoch).where(
            job_log.c.request_id == request_id, job_log.c.epoch > (stored.epoch or 0)
        )
    )
    return None if any(stored.is_before(row.job_id, row[1]) for row in rows) else stored.chain


class StoredChain(NamedTuple):
    """A suspended chain, as it is sent to runners.

    Attributes:
        chain: The chain.
        epoch: The epoch that was suspended; None if an original Spin Cycle suspended the chain.
    """

    chain: SuspendedJobChain
    epoch: int | None

    def is_before(self, job_id: str, number: int) -> bool:
        """Whether the chain was suspended before a try of a later epoch than its own.

        The runs of an original have no epoch. So there, the numbers of the tries tell: they count up over the
        whole request.
        """
        return self.epoch is not None or number > self.chain.total_job_tries.get(job_id, 0)


def stored_chain(connection: Connection, where: ColumnElement[bool]) -> StoredChain | None:
    """Returns the only suspended chain that matches a condition; None if there is none.

    There is also none if the chain was too long to store.
    """
    row = connection.execute(
        select(suspended_job_chains.c.suspended_job_chain, suspended_job_chains.c.epoch).where(where)
    ).one_or_none()
    if row is None or not row.suspended_job_chain:
        return None
    chain = decode(row.suspended_job_chain, SuspendedJobChain)
    remove_stopped_tries(chain, by_original=row.epoch is None)
    return StoredChain(chain, row.epoch)


def suspended_before(connection: Connection, seconds: float, limit: int) -> Sequence[Assignment]:
    """Returns the last assignments of requests that have been suspended for longer than `seconds`.

    A paused request is not among them.
    """
    before = database_now(connection) - int(seconds * 1_000_000)
    query = (
        select(requests.c.request_id, requests.c.epoch)
        .join(suspended_job_chains, suspended_job_chains.c.request_id == requests.c.request_id)
        .where(
            requests.c.state == State.SUSPENDED,
            requests.c.paused_at.is_(None),
            suspended_job_chains.c.suspended_at < before,
        )
        .limit(limit)
    )
    return [Assignment(request_id=row.request_id, epoch=row.epoch) for row in connection.execute(query)]


def set_suspended(rows: RequestRows, request_id: str, finished_jobs: int, finished_tasks: int | None) -> None:
    """Sets a request SUSPENDED. From now on, it has no runner, and an original may resume it."""
    rows.change(
        request_id,
        state=State.SUSPENDED,
        runner_id=ORIGINAL,
        jr_url=None,
        finished_jobs=finished_jobs,
        finished_tasks=finished_tasks,
    )


def save_suspended(transaction: Transaction, chains: Sequence[SuspendedRow]) -> None:
    """Stores suspended chains. Each replaces its request's earlier one.

    Of a chain that is too long for one value, only the time is stored. Its request continues from its record.
    A chain that an original has suspended belongs to that, so it stays.
    """
    if not chains:
        return
    now = database_now(transaction.connection)
    longest = transaction.longest_row
    ids = [request_id for request_id, _, _ in chains]
    kept = set(
        transaction.execute(
            select(suspended_job_chains.c.request_id).where(
                suspended_job_chains.c.request_id.in_(ids), suspended_job_chains.c.is_dropped.is_not(True)
            )
        ).scalars()
    )
    too_long = {request_id for request_id, data, _ in chains if not data or len(data) > longest}
    if both := too_long & kept:
        count_from_now(transaction, both)
        chains = [one for one in chains if one[0] not in both]
    transaction.execute(
        delete(suspended_job_chains).where(
            suspended_job_chains.c.request_id.in_([request_id for request_id, _, _ in chains])
        )
    )
    if not chains:
        return
    transaction.execute(
        insert(suspended_job_chains),
        [
            {
                "request_id": request_id,
                "suspended_job_chain": b"" if request_id in too_long else data,
                "updated_at": now,
                "suspended_at": now,
                "epoch": epoch,
                "is_dropped": epoch is not None and request_id not in kept,
            }
            for request_id, data, epoch in chains
        ],
    )
