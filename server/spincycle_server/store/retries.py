"""Retries of requests: what they are made from, and the rule that only one of them may run.

A request and all its retries, and their retries, are one family. Only one of a family may be unfinished. The
row of the family's first request is the lock: whoever creates a retry holds it while he looks at the others.
If the first request was deleted by its age, the rows of its retries are the lock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import Column, func, select
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import FailedPreconditionError, SpinCycleError
from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest as CreateRequestMessage
from spincycle_grpc.v1.runner_reports_pb2 import TryReport
from spincycle_grpc.wire import decode
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.creation import CreateRequest
from spincycle_server.store.errors import CreatedBeforeError, not_found
from spincycle_server.store.idempotency_keys import request_of_key
from spincycle_server.store.record import get_record
from spincycle_server.store.schema import job_log, request_archives, requests
from spincycle_server.store.write import Write


@dataclass(frozen=True, slots=True)
class RetrySource:
    """What a retry is made from.

    Attributes:
        create_request: The message that asked for the request.
        job_chain: Its chain as created.
        tries: Its tries, see `Record.tries`.
        is_known: Whether the record has all tries: an original Spin Cycle recorded none of them.
    """

    create_request: CreateRequestMessage
    job_chain: JobChain
    tries: list[tuple[int, TryReport]]
    is_known: bool


def get_retry_source(connection: Connection, request_id: str) -> RetrySource:
    """Returns what a retry of a request is made from.

    Raises:
        NotFoundError: The request does not exist.
    """
    record = get_record(connection, request_id)
    created = connection.scalar(
        select(request_archives.c.create_request).where(request_archives.c.request_id == request_id)
    )
    if created is None:
        raise not_found(request_id)
    unknown = connection.scalar(
        select(func.count()).where(job_log.c.request_id == request_id, job_log.c.epoch.is_(None))
    )
    return RetrySource(
        decode(created, CreateRequestMessage),
        record.job_chain,
        record.tries,
        is_known=record.base is None and not unknown,
    )


@dataclass(slots=True)
class CreateRetry(Write):
    """Stores a retry, unless one of its family has not ended. Result: as of CreateRequest, or the refusal."""

    # Before CreateRequest: all transactions lock rows of requests before they claim keys.
    order: ClassVar[int] = 99
    creation: CreateRequest

    @property
    def request_ids(self) -> Iterable[str]:
        """The new request."""
        return self.creation.request_ids

    @classmethod
    def apply_all(
        cls, transaction: Transaction, writes: Sequence[CreateRetry]
    ) -> Sequence[SpinCycleError | bool | None]:
        """Locks the families, decides about each retry in turn, and stores those that may be created."""
        families = _Families(transaction, [write.creation.request["retry_of"] for write in writes])
        results: list[SpinCycleError | bool | None] = [families.add(write.creation) for write in writes]
        free = [index for index, refusal in enumerate(results) if refusal is None]
        created = CreateRequest.apply_all(transaction, [writes[index].creation for index in free])
        for index, result in zip(free, created, strict=True):
            results[index] = result
        return results


class _Families:
    """The families of some requests, locked until the transaction ends."""

    def __init__(self, transaction: Transaction, request_ids: Sequence[str]) -> None:
        self._transaction = transaction
        connection = transaction.connection
        self._firsts = {request_id: _first_of(connection, request_id) for request_id in set(request_ids)}
        firsts = {first for first in self._firsts.values() if first}
        locked = self._lock(requests.c.request_id, firsts)
        if deleted := firsts - locked:
            locked |= self._lock(requests.c.retry_of, deleted)
        self._unfinished = {first: _unfinished(connection, first) for first in locked}
        self._keys: set[bytes] = set()

    def _lock(self, column: Column[str], values: Collection[str]) -> set[str]:
        """Locks the rows with some values in a column. Returns the values that a row has."""
        query = (
            select(column)
            .where(column.in_(sorted(values)))
            # All transactions take locks in the same order, because otherwise they could deadlock.
            .order_by(requests.c.request_id)
            .with_for_update()
        )
        return set(self._transaction.execute(query).scalars())

    def add(self, creation: CreateRequest) -> SpinCycleError | None:
        """Counts a new retry. Returns why it must not be created, or None."""
        request_id = creation.request["retry_of"]
        first = self._firsts[request_id]
        if first not in self._unfinished:
            return not_found(request_id)
        refusal = self._repeated(creation)
        if refusal is not None or (creation.key is not None and creation.key.key_hash in self._keys):
            return refusal  # A key of this transaction is claimed by the first call with it.
        unfinished = self._unfinished[first]
        if unfinished:
            return not_ended(request_id, unfinished)
        self._unfinished[first] = creation.request["request_id"]
        if creation.key is not None:
            self._keys.add(creation.key.key_hash)
        return None

    def _repeated(self, creation: CreateRequest) -> SpinCycleError | None:
        """Returns the error for a call whose key has created a request before."""
        if creation.key is None:
            return None
        try:
            earlier = request_of_key(self._transaction, creation.key)
        except SpinCycleError as error:
            return error
        if earlier is None:
            return None
        return CreatedBeforeError(
            "the request was created before", reason="CREATED_BEFORE", request_id=earlier
        )


def not_ended(request_id: str, retry_id: str) -> FailedPreconditionError:
    """Returns the error for a request whose retry has not ended."""
    return FailedPreconditionError(
        f"retry {retry_id} of the request has not ended: wait for it, or stop it",
        reason="RETRY_NOT_ENDED",
        request_id=request_id,
    )


def _first_of(connection: Connection, request_id: str) -> str:
    """Returns the first request of a family; "" if the request does not exist.

    If requests of the family were deleted, it is the newest of those, which its retries still name.
    """
    first = ""
    earlier: str | None = request_id
    while earlier:
        row: Any = connection.execute(
            select(requests.c.request_id, requests.c.retry_of).where(requests.c.request_id == earlier)
        ).one_or_none()
        if row is None:
            return earlier if first else ""
        first, earlier = row.request_id, row.retry_of
    return first


def _unfinished(connection: Connection, first: str) -> str:
    """Returns the retry of a family that has not ended; "" if there is none."""
    generation: Collection[str] = [first]
    while generation:
        rows = connection.execute(
            select(requests.c.request_id, requests.c.state).where(requests.c.retry_of.in_(generation))
        ).all()
        for row in rows:
            if row.state not in FINAL_STATES:
                return str(row.request_id)
        generation = [row.request_id for row in rows]
    return ""
