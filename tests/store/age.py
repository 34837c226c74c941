"""Makes rows of a store older, as time would: by the clock of the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import update
from sqlalchemy.sql import Executable

from spincycle_server.database.clock import database_now
from spincycle_server.store import Store
from spincycle_server.store.request_rows import RequestRows
from spincycle_server.store.schema import suspended_job_chains
from spincycle_server.store.states import StateWrite

DAY = 86_400
"""Seconds."""


@dataclass
class _Aging(StateWrite):
    request_id: str
    older: Callable[[int], Executable]

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> None:
        transaction = rows._transaction
        transaction.execute(self.older(database_now(transaction.connection)))


async def make_older(store: Store, request_id: str, older: Callable[[int], Executable]) -> None:
    """Executes a statement in a transaction of the store's writer.

    Args:
        store: The store.
        request_id: A request that exists.
        older: Returns the statement. It gets the time of the database, in microseconds.
    """
    await store._writer.write(_Aging(request_id, older))


async def make_suspension_older(store: Store, request_id: str) -> None:
    """Lets a request have been suspended a day ago."""
    table = suspended_job_chains
    await make_older(
        store,
        request_id,
        lambda now: (
            update(table).where(table.c.request_id == request_id).values(suspended_at=now - DAY * 1_000_000)
        ),
    )
