"""The record of a request: what its chain is rebuilt from if its runner is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.struct_pb2 import Struct
from sqlalchemy import and_, select
from sqlalchemy.engine import Connection

from spincycle_grpc.state import State
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import TryReport
from spincycle_grpc.wire import decode
from spincycle_server.store.lookups import get_job_chain
from spincycle_server.store.schema import job_log, requests, suspended_job_chains
from spincycle_server.store.suspects import StoredSuspect, get_suspect
from spincycle_server.store.suspended_chains import stored_chain

_TRY_COLUMNS = (
    job_log.c.job_id,
    job_log.c["try"],
    job_log.c.sequence_try,
    job_log.c.state,
    job_log.c.job_data,
    job_log.c.is_last,
    job_log.c.epoch,
    job_log.c.ordinal,
    job_log.c.started_at,
    job_log.c.finished_at,
)


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that a request's chain is rebuilt from.

    Attributes:
        job_chain: The chain as created.
        base: A chain that an original Spin Cycle suspended and that was resumed here; None if there is none.
        tries: The tries since `base` was suspended, each with the epoch of its assignment, in the order in
            which they were committed. Their entries lack what recovery does not need: names, types, errors
            and output.
        stop_requested: Whether a user asked to stop the request.
        paused: Whether a user has paused the request.
        suspect: What is known of the request if its runner died; None if it is no suspect.
        ending: FAIL or STOPPED if the request is to end so after its `finally` parts; None if it goes on or
            has none.
        skip_finally: Whether these are skipped.
    """

    job_chain: JobChain
    base: SuspendedJobChain | None
    tries: list[tuple[int, TryReport]]
    stop_requested: bool
    paused: bool = False
    suspect: StoredSuspect | None = None
    ending: State | None = None
    skip_finally: bool = False


def get_record(connection: Connection, request_id: str) -> Record:
    """Returns the record of a request.

    Raises:
        NotFoundError: The request does not exist.
    """
    job_chain = get_job_chain(connection, request_id)
    request = connection.execute(
        select(
            requests.c.stop_requested,
            requests.c.is_suspect,
            requests.c.paused_at,
            requests.c.ending,
            requests.c.skip_finally,
        ).where(requests.c.request_id == request_id)
    ).one_or_none()
    base = stored_chain(
        connection,
        and_(suspended_job_chains.c.request_id == request_id, suspended_job_chains.c.is_dropped.is_not(True)),
    )
    after = 0 if base is None else base.epoch or 0
    query = (
        select(*_TRY_COLUMNS)
        .where(job_log.c.request_id == request_id, job_log.c.epoch > after)
        .order_by(job_log.c.epoch, job_log.c.ordinal)
    )
    return Record(
        job_chain,
        None if base is None else base.chain,
        [
            (row.epoch, _try_report(request_id, row))
            for row in connection.execute(query)
            if base is None or base.is_before(row.job_id, row[1])
        ],
        bool(request and request.stop_requested),
        bool(request and request.paused_at is not None),
        get_suspect(connection, request_id) if request and request.is_suspect else None,
        State(request.ending) if request and request.ending is not None else None,
        bool(request and request.skip_finally),
    )


def _try_report(request_id: str, row: Any) -> TryReport:
    entry = JobLog(
        request_id=request_id,
        job_id=row.job_id,
        state=row.state,
        started_at=row.started_at,
        finished_at=row.finished_at,
        **{"try": row[1]},
    )
    tried = TryReport(
        entry=entry, sequence_try=row.sequence_try, ordinal=row.ordinal, is_last=bool(row.is_last)
    )
    if row.job_data is not None:
        tried.job_data.CopyFrom(decode(row.job_data, Struct))
    return tried
