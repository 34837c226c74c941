"""Adopts the database of an original Spin Cycle.

Adds the rows that its requests lack in the new tables, and finds the requests that it left PENDING.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import and_, func, select, update
from sqlalchemy.engine import Connection, Engine

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.wire import decode_into
from spincycle_server.database.clock import database_now
from spincycle_server.database.dialects import insert_ignoring
from spincycle_server.database.retrying import in_transaction
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.rows import arg_rows
from spincycle_server.store.schema import ORIGINAL, request_archives, request_args, requests
from spincycle_server.store.writer_row import WriterRow

_PAGE = 200
"""Requests per transaction."""

_LEFT_PENDING = and_(requests.c.state == State.PENDING, requests.c.runner_id == ORIGINAL)


def index_args(engine: Engine, *, patience: float) -> int:
    """Indexes the args of an original's requests, which are stored only in the archives.

    Adds the missing rows of `request_args` in small transactions, and can be run again at any time. Does
    nothing on databases other than MySQL and MariaDB, because originals use no others.

    Args:
        engine: Connects to the database.
        patience: Seconds to wait for the database to come back.

    Returns:
        The number of requests whose args were indexed.

    Raises:
        SpinCycleError: The database cannot be used.
    """
    if engine.dialect.name != "mysql":
        return 0
    indexed, after = 0, ""
    while True:
        ids, rows = in_transaction(engine, partial(_index_page, after=after), patience=patience)
        indexed += rows
        if len(ids) < _PAGE:
            return indexed
        after = ids[-1]


def count_left_pending(connection: Connection) -> int:
    """Returns how many PENDING requests an original created. No server runs them until somebody starts them.

    An original stores a request before it checks whether the caller may create it. So it may have denied
    them.
    """
    return connection.scalar(select(func.count()).select_from(requests).where(_LEFT_PENDING)) or 0


def fail_left_pending(engine: Engine, *, patience: float) -> int:
    """Sets the PENDING requests that an original created to FAIL, in small transactions.

    Args:
        engine: Connects to the database.
        patience: Seconds to wait for the database to come back.

    Returns:
        The number of these requests.

    Raises:
        SpinCycleError: The database cannot be used.
    """
    failed = 0
    # Watchers learn of these requests as of other changes: by the stamps of a writer.
    writer = WriterRow(engine)
    writer.next_batch()
    in_transaction(engine, writer.write, patience=patience)
    while page := in_transaction(engine, partial(_fail_page, writer=writer), patience=patience):
        failed += page
    return failed


def _fail_page(connection: Connection, writer: WriterRow) -> int:
    ids = connection.scalars(
        select(requests.c.request_id)
        .where(_LEFT_PENDING)
        .order_by(requests.c.request_id)
        .limit(_PAGE)
        .with_for_update()
    ).all()
    if ids:
        writer.next_batch()  # A repeated transaction gets another number, as the first may be committed.
        transaction = Transaction(connection, writer.stamp)
        connection.execute(
            update(requests)
            .where(requests.c.request_id.in_(ids))
            .values(
                state=State.FAIL,
                finished_at=database_now(connection),
                change_stamp=transaction.stamp,
                # In old MySQL tables, the first TIMESTAMP column changes with each update of the row.
                created_at=requests.c.created_at,
            )
        )
        writer.store_number(transaction)
        transaction.flush()
    return len(ids)


def _index_page(connection: Connection, after: str) -> tuple[list[str], int]:
    has_args = select(request_args.c.request_id).where(request_args.c.request_id == requests.c.request_id)
    ids = list(
        connection.scalars(
            select(requests.c.request_id)
            .where(requests.c.request_id > after, ~has_args.exists())
            .order_by(requests.c.request_id)
            .limit(_PAGE)
        )
    )
    archives = connection.execute(
        select(request_archives.c.request_id, request_archives.c.args, requests.c.created_at)
        .join(requests, requests.c.request_id == request_archives.c.request_id)
        .where(request_archives.c.request_id.in_(ids))
    )
    rows = [
        row for archive in archives for row in _rows(archive.request_id, archive.created_at, archive.args)
    ]
    if rows:
        connection.execute(insert_ignoring(connection.dialect.name, request_args), rows)
    return ids, len({row["request_id"] for row in rows})


def _rows(request_id: str, created_at: int, args: bytes | None) -> list[dict[str, Any]]:
    request = Request()
    try:
        decode_into(request, args or b"[]", "args")
    except InvalidArgumentError:  # Such args cannot be shown either, so they must not stop the migration.
        return []
    return arg_rows(request_id, created_at, request.args)
