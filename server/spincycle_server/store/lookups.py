"""Reads of requests: plain functions that run with a connection in the store's reader threads."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import or_, select
from sqlalchemy.engine import Connection

from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_grpc.wire import decode
from spincycle_server.database.chunks import in_chunks
from spincycle_server.store.archived_chains import archived_chain
from spincycle_server.store.errors import not_found
from spincycle_server.store.rows import marked_request_of
from spincycle_server.store.schema import ORIGINAL, requests

_AFTER_ALL_DIGITS = "w"
"""Comes after each digit of an id: they are 0-9a-v."""


def get_job_chain(connection: Connection, request_id: str) -> JobChain:
    """Returns the job chain of a request as created.

    Raises:
        NotFoundError: The request does not exist.
    """
    data = archived_chain(connection, request_id)
    if data is None:
        raise not_found(request_id)
    return decode(data, JobChain)


def requests_by_id(connection: Connection, request_ids: Collection[str]) -> dict[str, Request]:
    """Returns the requests with the given ids that exist, by id, without args and job chains."""
    found: dict[str, Request] = {}
    for some in in_chunks(request_ids):
        query = select(requests).where(requests.c.request_id.in_(some))
        found.update((row.request_id, marked_request_of(row)) for row in connection.execute(query))
    return found


def ids_beginning_with(connection: Connection, beginning: str, limit: int) -> list[tuple[str, str]]:
    """Returns ids and types of requests, sorted by id.

    Args:
        connection: An open connection.
        beginning: What the ids begin with: digits of an id.
        limit: The maximum number of requests.
    """
    request_id = requests.c.request_id
    query = (
        select(request_id, requests.c.type)
        .where(request_id >= beginning, request_id < beginning + _AFTER_ALL_DIGITS)
        .order_by(request_id)
        .limit(limit)
    )
    return [(row.request_id, row.type) for row in connection.execute(query)]


def get_assignment(connection: Connection, request_id: str) -> tuple[Assignment, str] | None:
    """Returns the assignment of a RUNNING request and the id of its runner; None if it has no assignment.

    A request that an original Spin Cycle runs has none.

    The id is "" if the request waits to be taken over.
    """
    row = connection.execute(
        select(requests.c.epoch, requests.c.runner_id).where(
            requests.c.request_id == request_id, requests.c.state == State.RUNNING
        )
    ).one_or_none()
    if row is None or not row.epoch or row.runner_id == ORIGINAL:
        return None
    return Assignment(request_id=request_id, epoch=row.epoch), row.runner_id or ""


class Assigned(NamedTuple):
    """A RUNNING request that is assigned to a runner.

    Attributes:
        epoch: The epoch of the assignment.
        stop_requested: Whether a user asked to stop the request.
        paused: Whether a user has paused it.
        pause_now: Whether the pause stops its running jobs.
        skip_finally: Whether a second stop lets its `finally` parts be skipped.
    """

    epoch: int
    stop_requested: bool
    paused: bool
    pause_now: bool
    skip_finally: bool


def assigned_to(connection: Connection, runner_id: str) -> dict[str, Assigned]:
    """Returns the RUNNING requests that are assigned to a runner, by request id."""
    query = select(
        requests.c.request_id,
        requests.c.epoch,
        requests.c.stop_requested,
        requests.c.paused_at,
        requests.c.pause_now,
        requests.c.skip_finally,
    ).where(requests.c.state == State.RUNNING, requests.c.runner_id == runner_id)
    return {
        row.request_id: Assigned(
            row.epoch,
            row.stop_requested,
            row.paused_at is not None,
            bool(row.pause_now),
            bool(row.skip_finally),
        )
        for row in connection.execute(query)
    }


def run_by_originals(connection: Connection, limit: int) -> dict[str, str]:
    """Returns the URLs of the runners of RUNNING requests that originals run, by request id."""
    query = (
        select(requests.c.request_id, requests.c.jr_url)
        .where(
            requests.c.state == State.RUNNING,
            or_(requests.c.runner_id == ORIGINAL, requests.c.epoch == 0),
        )
        .order_by(requests.c.created_at)
        .limit(limit)
    )
    return {row.request_id: row.jr_url or "" for row in connection.execute(query)}
