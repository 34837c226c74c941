"""Deletes many rows in small transactions, so that servers can work at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.engine import Connection, Engine

from spincycle_server.database.retrying import in_transaction

_SHORTEST_PAUSE = 0.005
_LONGEST_PAUSE = 1.0

_Batch = TypeVar("_Batch")


def delete_in_batches(
    engine: Engine,
    delete_batch: Callable[[Connection], _Batch | None],
    progress: Callable[[_Batch], None],
    is_interrupted: Callable[[], bool],
    *,
    patience: float,
) -> bool:
    """Deletes batches until there are no more. Pauses after each batch, for as long as the batch took.

    Args:
        engine: Connects to the database.
        delete_batch: Deletes one batch. Returns something false if there was nothing to delete.
        progress: Called after each transaction with the batch that it deleted.
        is_interrupted: Called between transactions; returns whether to stop.
        patience: Seconds for which a failed transaction is retried.

    Returns:
        Whether there are no more; False if the run was interrupted.

    Raises:
        UnavailableError: The database cannot be used. Everything that was reported to `progress` is deleted.
    """
    while True:
        if is_interrupted():
            return False
        began = time.monotonic()
        batch = in_transaction(engine, delete_batch, patience=patience)
        if not batch:
            return True
        progress(batch)
        # Leave half of the time to the servers.
        time.sleep(min(max(time.monotonic() - began, _SHORTEST_PAUSE), _LONGEST_PAUSE))
