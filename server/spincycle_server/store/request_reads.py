"""Reads of single requests, which share statements with those of others. Large requests are read alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, case, func, literal_column, select
from sqlalchemy.engine import Connection

from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.wire import decode_into
from spincycle_server.database.joined_reads import JoinedReads
from spincycle_server.database.keyed_read import KeyedRead
from spincycle_server.database.read_pool import ReadPool
from spincycle_server.store import changes
from spincycle_server.store.archived_chains import whole_chain
from spincycle_server.store.errors import not_found
from spincycle_server.store.rows import marked_request_of
from spincycle_server.store.schema import request_archives, requests

MAX_SMALL = 8 * 1024
"""The maximum size in bytes of args, and of a chain, that are read together with those of other requests.

They take less than a millisecond to decode, and those of a statement take up to 1 MiB of memory.
"""

_LONGEST_ID = 20
"""The length of the column of ids, in characters."""

_ARGS = request_archives.c.args
_JOB_CHAIN = request_archives.c.job_chain

_retries = requests.alias("retries")
# Ids sort by the time of creation.
_NEWEST_RETRY = (
    select(func.max(_retries.c.request_id))
    .where(_retries.c.retry_of == requests.c.request_id)
    .scalar_subquery()
    .label("retried_by")
)


def _query(*columns: ColumnElement[Any]) -> Select[Any]:
    """Returns a SELECT of requests, with columns of their archives."""
    joined = requests.outerjoin(request_archives, requests.c.request_id == request_archives.c.request_id)
    return select(*requests.c, _NEWEST_RETRY, *columns).select_from(joined)


def _if_small(column: Column[bytes]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Returns the value of a column, or NULL if it is long, and its length in bytes."""
    length = func.length(column)
    value = case((length <= literal_column(str(MAX_SMALL)), column))
    return value.label(column.name), length.label(f"{column.name}_length")


def _small(*columns: Column[bytes]) -> KeyedRead:
    """Returns the read of small requests with columns of their archives."""
    query = _query(*(part for column in columns for part in _if_small(column)))
    return KeyedRead(lambda _: query, requests.c.request_id)


_SMALL = {False: _small(_ARGS), True: _small(_ARGS, _JOB_CHAIN)}
"""Small requests, without job chains and with them."""

_ANY = {False: _query(_ARGS), True: _query(_ARGS, _JOB_CHAIN)}
"""Requests of any size, likewise."""


class RequestReads:
    """Reads requests.

    Args:
        reader: The threads that read.
    """

    def __init__(self, reader: ReadPool) -> None:
        self._reader = reader
        self._small = {
            chains: JoinedReads(reader, partial(_small_rows, read)) for chains, read in _SMALL.items()
        }
        self._stamped = JoinedReads(reader, changes.stamped_rows)
        self._few_tries = JoinedReads(reader, changes.few_tries)

    async def get(self, request_id: str, *, with_job_chain: bool) -> Request:
        """Returns a request with its args, and with its job chain if asked.

        Raises:
            NotFoundError: It does not exist.
            UnavailableError: The database cannot be used now.
        """
        row = await self._small[with_job_chain].get(request_id) if _may_exist(request_id) else None
        if row is None:
            raise not_found(request_id)
        if _is_small(row, with_job_chain=with_job_chain):
            return _request_of(row, row.job_chain if with_job_chain else None)
        return await self._reader.read(_any_request, request_id, with_job_chain)

    async def stamped(self, request_id: str) -> changes.StampedRequest | None:
        """Returns a request with the stamp of its change; None if it does not exist.

        Raises:
            UnavailableError: The database cannot be used now.
        """
        row = await self._stamped.get(request_id) if _may_exist(request_id) else None
        return None if row is None else changes.stamped_request_of(row)

    async def few_tries(self, request_id: str) -> list[changes.Try] | None:
        """Returns the finished tries of a request, in order; None if they must be read in pages.

        Raises:
            UnavailableError: The database cannot be used now.
        """
        return await self._few_tries.get(request_id) if _may_exist(request_id) else None


def _may_exist(request_id: str) -> bool:
    """Whether a text is short enough for an id.

    A long one must not be read with others, because it can make their statement too large for the database.
    """
    return len(request_id) <= _LONGEST_ID


def _small_rows(read: KeyedRead, connection: Connection, request_ids: Sequence[str]) -> Mapping[str, Any]:
    return {row.request_id: row for row in read.read(connection, request_ids)}


def _is_small(row: Any, *, with_job_chain: bool) -> bool:
    """Whether a row has everything. A request without an archive has neither args nor a chain."""
    if (row.args_length or 0) > MAX_SMALL:
        return False
    # The column is empty if the chain is in pages.
    return not with_job_chain or row.job_chain_length is None or 0 < row.job_chain_length <= MAX_SMALL


def _any_request(connection: Connection, request_id: str, with_job_chain: bool) -> Request:
    row = connection.execute(_ANY[with_job_chain].where(requests.c.request_id == request_id)).one_or_none()
    if row is None:
        raise not_found(request_id)
    if not with_job_chain or row.job_chain is None:
        return _request_of(row, None)
    return _request_of(row, whole_chain(connection, request_id, row.job_chain))


def _request_of(row: Any, job_chain: bytes | None) -> Request:
    request = marked_request_of(row, shows_left=True)
    if row.args:
        decode_into(request, row.args, "args")
    request.retried_by = row.retried_by or ""
    if job_chain:
        decode_into(request, job_chain, "job_chain")
    return request
