"""The stored output of tries, read piece by piece, because it can be large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import LargeBinary, func, select
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import NotFoundError
from spincycle_grpc.output import MIDDLE, SHORTEST_NOTE, OutputCut, find_cut, first_of_middle
from spincycle_grpc.v1.output_pb2 import OUTPUT_STREAM_STDERR, OUTPUT_STREAM_STDOUT, OutputEnd, OutputStream
from spincycle_server.store.archived_chains import archived_chain
from spincycle_server.store.errors import not_found
from spincycle_server.store.schema import JOB_ID, MAX_TRY, job_log, requests

_COLUMNS = {OUTPUT_STREAM_STDOUT: job_log.c.stdout, OUTPUT_STREAM_STDERR: job_log.c.stderr}


class TryKey(NamedTuple):
    """The identity of a try."""

    request_id: str
    job_id: str
    number: int


@dataclass(frozen=True, slots=True)
class FinishedTry:
    """A try that has an entry in the job log.

    Attributes:
        key: Its identity.
        epoch: The epoch of the assignment in which it ran; 0 if the entry came from elsewhere.
        end: How it ended.
        sizes: The size of what is stored of each stream, in bytes.
        cuts: What was cut out of each stream; None if nothing was.
    """

    key: TryKey
    epoch: int
    end: OutputEnd
    sizes: dict[OutputStream.ValueType, int]
    cuts: dict[OutputStream.ValueType, OutputCut | None]


@dataclass(frozen=True, slots=True)
class TryPlace:
    """Where the output of a try is now.

    Attributes:
        state: The state of the request, a number.
        epoch: The epoch of its newest assignment; 0 if it was never assigned.
        runner_id: The runner of that assignment; "" if there is none.
        finished: The try, if it has ended. If the newest try was asked for, the newest that has ended.
    """

    state: int
    epoch: int
    runner_id: str
    finished: FinishedTry | None


def place_of_try(connection: Connection, request_id: str, job_id: str, number: int) -> TryPlace:
    """Returns where the output of a try is. Number 0 stands for the newest try.

    Raises:
        NotFoundError: The request does not exist. Reason: REQUEST_NOT_FOUND.
    """
    row = connection.execute(
        select(requests.c.state, requests.c.epoch, requests.c.runner_id).where(
            requests.c.request_id == request_id
        )
    ).one_or_none()
    if row is None:
        raise not_found(request_id)
    finished = _finished(connection, request_id, job_id, number)
    return TryPlace(row.state, row.epoch, row.runner_id or "", finished)


def check_job(connection: Connection, request_id: str, job_id: str) -> None:
    """Checks that the chain of a request has a job. It looks for the id in the JSON, without parsing it.

    Raises:
        NotFoundError: It has no such job. Reason: JOB_NOT_FOUND.
    """
    chain = archived_chain(connection, request_id) if JOB_ID.fullmatch(job_id) else None
    if chain is None or f'"{job_id}":{{'.encode() not in chain:
        raise NotFoundError(
            f"job {job_id} not found in request {request_id}", reason="JOB_NOT_FOUND", request_id=request_id
        )


def stored_piece(
    connection: Connection, key: TryKey, stream: OutputStream.ValueType, position: int, size: int
) -> bytes:
    """Returns up to `size` bytes of what is stored of a stream, from a position in bytes.

    Raises:
        NotFoundError: The entry was pruned. Reason: REQUEST_NOT_FOUND.
    """
    piece = func.substr(_COLUMNS[stream], position + 1, size, type_=LargeBinary)
    row = connection.execute(select(piece).where(*_is(key))).one_or_none()
    if row is None:
        raise not_found(key.request_id)
    return bytes(row[0] or b"")


def _finished(connection: Connection, request_id: str, job_id: str, number: int) -> FinishedTry | None:
    if number > MAX_TRY:
        return None
    query = select(
        job_log.c["try"].label("number"),
        job_log.c.epoch,
        job_log.c.state,
        job_log.c.exit,
        job_log.c.error,
        *(func.length(column).label(f"size_{stream}") for stream, column in _COLUMNS.items()),
    ).where(job_log.c.request_id == request_id, job_log.c.job_id == job_id)
    if number:
        query = query.where(job_log.c["try"] == number)
    row = connection.execute(query.order_by(job_log.c["try"].desc()).limit(1)).one_or_none()
    if row is None:
        return None
    key = TryKey(request_id, job_id, row.number)
    sizes = {stream: getattr(row, f"size_{stream}") or 0 for stream in _COLUMNS}
    return FinishedTry(
        key,
        row.epoch or 0,
        OutputEnd(state=row.state, exit=row.exit or 0, error=row.error or "", **{"try": row.number}),
        sizes,
        {stream: _cut(connection, key, stream, size) for stream, size in sizes.items()},
    )


def _cut(connection: Connection, key: TryKey, stream: OutputStream.ValueType, size: int) -> OutputCut | None:
    if size < SHORTEST_NOTE:
        return None
    first = first_of_middle(size)
    return find_cut(stored_piece(connection, key, stream, first, MIDDLE), first, size)


def _is(key: TryKey) -> tuple[Any, ...]:
    return (
        job_log.c.request_id == key.request_id,
        job_log.c.job_id == key.job_id,
        job_log.c["try"] == key.number,
    )
