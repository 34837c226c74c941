"""Reads: plain functions of an open connection, run in the store's reading threads."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import NotFoundError
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_grpc.wire import decode, decode_into
from spincycle_server.database.clock import database_now
from spincycle_server.store.request_writes import not_found
from spincycle_server.store.rows import log_entry_of, request_of
from spincycle_server.store.schema import (
    job_log,
    request_archives,
    requests,
    runners,
    suspended_job_chains,
)

_LOG_COLUMNS = (
    job_log.c.request_id,
    job_log.c.job_id,
    job_log.c["try"],
    job_log.c.name,
    job_log.c.type,
    job_log.c.started_at,
    job_log.c.finished_at,
    job_log.c.state,
    job_log.c.exit,
    job_log.c.error,
    job_log.c.stdout,
    job_log.c.stderr,
)
_IDS_AT_ONCE = 500


def get_request(connection: Connection, request_id: str, with_job_chain: bool) -> Request:
    """Returns a request with its args, and with its job chain if asked.

    Raises:
        NotFoundError: There is none.
    """
    columns: list[Any] = [*requests.c, request_archives.c.args]
    if with_job_chain:
        columns.append(request_archives.c.job_chain)
    joined = requests.outerjoin(request_archives, requests.c.request_id == request_archives.c.request_id)
    row = connection.execute(
        select(*columns).select_from(joined).where(requests.c.request_id == request_id)
    ).one_or_none()
    if row is None:
        raise not_found(request_id)
    request = request_of(row)
    if row.args:
        decode_into(request, row.args, "args")
    if with_job_chain and row.job_chain:
        decode_into(request, row.job_chain, "job_chain")
    return request


def get_job_chain(connection: Connection, request_id: str) -> JobChain:
    """Returns the chain as created.

    Raises:
        NotFoundError: There is no such request.
    """
    data = connection.scalar(
        select(request_archives.c.job_chain).where(request_archives.c.request_id == request_id)
    )
    if data is None:
        raise not_found(request_id)
    return decode(data, JobChain)


def requests_by_id(connection: Connection, request_ids: Collection[str]) -> dict[str, Request]:
    """Returns those of the requests that there are, by their ids, without args and job chains."""
    ids = list(request_ids)
    found: dict[str, Request] = {}
    for start in range(0, len(ids), _IDS_AT_ONCE):
        query = select(requests).where(requests.c.request_id.in_(ids[start : start + _IDS_AT_ONCE]))
        found.update((row.request_id, request_of(row)) for row in connection.execute(query))
    return found


def get_log(connection: Connection, request_id: str) -> list[JobLog]:
    """Returns the job log by job id and try.

    Raises:
        NotFoundError: There is no such request.
    """
    query = (
        select(*_LOG_COLUMNS)
        .where(job_log.c.request_id == request_id)
        .order_by(job_log.c.job_id, job_log.c["try"])
    )
    entries = [log_entry_of(row) for row in connection.execute(query)]
    if not entries:
        known = select(requests.c.request_id).where(requests.c.request_id == request_id)
        if connection.execute(known).one_or_none() is None:
            raise not_found(request_id)
    return entries


def get_try(connection: Connection, request_id: str, job_id: str, number: int) -> JobLog:
    """Returns the entry of one try that was recorded."""
    query = select(*_LOG_COLUMNS).where(
        job_log.c.request_id == request_id, job_log.c.job_id == job_id, job_log.c["try"] == number
    )
    return log_entry_of(connection.execute(query).one())


def get_job_log(connection: Connection, request_id: str, job_id: str) -> JobLog:
    """Returns the newest entry of a job.

    Raises:
        NotFoundError: There is none.
    """
    query = (
        select(*_LOG_COLUMNS)
        .where(job_log.c.request_id == request_id, job_log.c.job_id == job_id)
        .order_by(job_log.c["try"].desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(
            f"job {job_id} not found in request {request_id}",
            reason="JOB_NOT_FOUND",
            request_id=request_id,
        )
    return log_entry_of(row)


def get_assignment(connection: Connection, request_id: str) -> tuple[Assignment, str] | None:
    """Returns the assignment of a RUNNING request and the id of its runner; None when it has none.

    The id is "" where the request waits to be taken over.
    """
    row = connection.execute(
        select(requests.c.epoch, requests.c.runner_id).where(
            requests.c.request_id == request_id, requests.c.state == State.RUNNING
        )
    ).one_or_none()
    if row is None or not row.epoch:
        return None
    return Assignment(request_id=request_id, epoch=row.epoch), row.runner_id or ""


def get_suspended(connection: Connection, request_id: str) -> SuspendedJobChain | None:
    """Returns the suspended chain of a request, or None.

    None also where tries were reported since it was suspended, in an assignment that was lost: then
    the record alone tells how far the request is.
    """
    since = (
        select(job_log.c.job_id)
        .where(
            job_log.c.request_id == request_id,
            job_log.c.epoch > func.coalesce(suspended_job_chains.c.epoch, 0),
        )
        .exists()
    )
    data = connection.scalar(
        select(suspended_job_chains.c.suspended_job_chain).where(
            suspended_job_chains.c.request_id == request_id, ~since
        )
    )
    return None if data is None else decode(data, SuspendedJobChain)


def requests_in_state(connection: Connection, state: State, limit: int) -> Sequence[str]:
    """Returns the ids of requests in a state, oldest first."""
    return connection.scalars(
        select(requests.c.request_id)
        .where(requests.c.state == state)
        .order_by(requests.c.created_at)
        .limit(limit)
    ).all()


def count_in_state(connection: Connection, state: State, limit: int) -> int:
    """Returns how many requests are in a state; no more than the limit are counted."""
    found = select(requests.c.request_id).where(requests.c.state == state).limit(limit).subquery()
    return connection.scalar(select(func.count()).select_from(found)) or 0


def suspended_before(connection: Connection, seconds: float, limit: int) -> Sequence[Assignment]:
    """Returns the last assignments of requests that have been suspended for longer than this."""
    before = database_now(connection) - int(seconds * 1_000_000)
    query = (
        select(requests.c.request_id, requests.c.epoch)
        .join(suspended_job_chains, suspended_job_chains.c.request_id == requests.c.request_id)
        .where(and_(requests.c.state == State.SUSPENDED, suspended_job_chains.c.suspended_at < before))
        .limit(limit)
    )
    return [Assignment(request_id=row.request_id, epoch=row.epoch) for row in connection.execute(query)]


def live_runners(connection: Connection) -> list[tuple[RunnerInfo, bool]]:
    """Returns the runners whose leases last, each with whether it is draining.

    Of several at one address it is the one that was renewed last: the others are gone.
    """
    now = database_now(connection)
    query = select(runners).where(runners.c.lease_expires_at > now).order_by(runners.c.lease_expires_at)
    newest = {row.grpc_address: row for row in connection.execute(query)}
    return [
        (RunnerInfo(runner_id=row.runner_id, url=row.url, grpc_address=row.grpc_address), row.draining)
        for row in newest.values()
    ]
