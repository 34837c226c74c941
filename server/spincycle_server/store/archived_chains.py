"""The chains of requests as created: a value in the archive of the request, or pages if it would be too long.

MariaDB and MySQL refuse packets above a limit, and so statements with longer values. A request whose chain is
in pages cannot go back to an original Spin Cycle, which reads the archive only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection

from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store.schema import job_chain_pages, request_archives

MAX_PAGE = 256 * 1024
"""The maximum size of a page in bytes. Escapes can make it twice as long in a packet."""

_INSERT_ARCHIVE = RowStatement(lambda _: insert(request_archives))

_INSERT_PAGE = RowStatement(lambda _: insert(job_chain_pages))


def add_archives(transaction: Transaction, archives: list[Mapping[str, Any]]) -> None:
    """Inserts the archives of new requests. The chains of rows that would be too long become pages."""
    longest = transaction.longest_row
    for place, archive in enumerate(archives):
        if len(archive["job_chain"]) + len(archive["args"]) + len(archive["create_request"]) > longest:
            archives[place] = {**archive, "job_chain": b""}
            transaction.change(_INSERT_PAGE, _pages(archive["request_id"], archive["job_chain"]))
    transaction.change(_INSERT_ARCHIVE, archives)


def archived_chain(connection: Connection, request_id: str) -> bytes | None:
    """Returns the JSON of a request's chain as created; None if there is no such request."""
    archived = connection.scalar(
        select(request_archives.c.job_chain).where(request_archives.c.request_id == request_id)
    )
    return None if archived is None else whole_chain(connection, request_id, archived)


def whole_chain(connection: Connection, request_id: str, archived: bytes) -> bytes:
    """Returns the JSON of a request's chain as created.

    Args:
        connection: An open connection.
        request_id: The request.
        archived: What its archive has of it.
    """
    if archived:
        return archived
    query = (
        select(job_chain_pages.c.page)
        .where(job_chain_pages.c.request_id == request_id)
        .order_by(job_chain_pages.c.number)
    )
    return b"".join(connection.scalars(query))


def _pages(request_id: str, job_chain: bytes) -> list[dict[str, Any]]:
    return [
        {"request_id": request_id, "number": number, "page": job_chain[start : start + MAX_PAGE]}
        for number, start in enumerate(range(0, len(job_chain), MAX_PAGE))
    ]
