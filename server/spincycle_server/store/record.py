"""The record of a request: what its chain can be rebuilt from after its runner died."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.struct_pb2 import Struct
from sqlalchemy import select
from sqlalchemy.engine import Connection

from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
from spincycle_grpc.wire import decode
from spincycle_server.store.lookups import get_job_chain
from spincycle_server.store.schema import job_log, requests, suspended_job_chains

_TRY_COLUMNS = (
    job_log.c.job_id,
    job_log.c["try"],
    job_log.c.sequence_try,
    job_log.c.state,
    job_log.c.job_data,
    job_log.c.is_last,
    job_log.c.epoch,
    job_log.c.started_at,
    job_log.c.finished_at,
)


@dataclass(frozen=True, slots=True)
class StoredTry:
    """What recovery needs of a try that a runner reported.

    Attributes:
        data: The job's data after it, as a Struct; None where it has none.
        is_last: Whether the job failed for good.
        started_at: In nanoseconds by the clock of the assignment's runner, as `finished_at`.
    """

    job_id: str
    number: int
    sequence_try: int
    state: int
    data: Struct | None
    is_last: bool
    epoch: int
    started_at: int
    finished_at: int


@dataclass(frozen=True, slots=True)
class Record:
    """All that a request's chain can be rebuilt from.

    Attributes:
        job_chain: The chain as created.
        base: The chain as somebody else suspended it, from which it was resumed; None: it was not.
        tries: The tries that runners reported since, in order.
        stop_requested: Whether it is to stop.
    """

    job_chain: JobChain
    base: SuspendedJobChain | None
    tries: list[StoredTry]
    stop_requested: bool


def get_record(connection: Connection, request_id: str) -> Record:
    """Returns what a request's chain can be rebuilt from.

    Raises:
        NotFoundError: There is no such request.
    """
    job_chain = get_job_chain(connection, request_id)
    stop_requested = connection.scalar(
        select(requests.c.stop_requested).where(requests.c.request_id == request_id)
    )
    base = connection.execute(
        select(suspended_job_chains.c.suspended_job_chain, suspended_job_chains.c.epoch).where(
            suspended_job_chains.c.request_id == request_id, suspended_job_chains.c.is_dropped.is_not(True)
        )
    ).one_or_none()
    after = 0 if base is None else base.epoch or 0
    query = (
        select(*_TRY_COLUMNS)
        .where(job_log.c.request_id == request_id, job_log.c.epoch > after)
        .order_by(job_log.c.epoch, job_log.c.ordinal)
    )
    return Record(
        job_chain,
        None if base is None else decode(base.suspended_job_chain, SuspendedJobChain),
        [_stored_try(row) for row in connection.execute(query)],
        bool(stop_requested),
    )


def _stored_try(row: Any) -> StoredTry:
    return StoredTry(
        job_id=row.job_id,
        number=row[1],
        sequence_try=row.sequence_try,
        state=row.state,
        data=None if row.job_data is None else decode(row.job_data, Struct),
        is_last=row.is_last,
        epoch=row.epoch,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
