"""Errors of a Galera cluster: a node that is not ready, and a commit whose outcome is unknown."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pymysql
import pytest

from spincycle_server.database.transaction import Transaction
from spincycle_server.store import Store
from spincycle_server.store.batches import BatchCommitter
from tests.databases import OPTIONS, SharedServers
from tests.store.samples import create

NOT_READY = pymysql.err.InternalError(1047, "WSREP has not yet prepared node for application use")
IN_DOUBT = pymysql.err.OperationalError(1180, 'Got error 6 "No such device or address" during COMMIT')


class Fault:
    """Makes the first commit of each writer fail with an error, before or after it happened."""

    def __init__(self, store: Store, error: Exception, when: str) -> None:
        self.count = 0
        self._error, self._when = error, when
        for writer in {store._writer, store._creator}:
            batches = writer.batches
            batches.commit = partial(self._commit, batches)  # type: ignore[method-assign]

    def _commit(self, batches: BatchCommitter, transaction: Transaction) -> None:
        if self.count:
            BatchCommitter.commit(batches, transaction)
            return
        self.count += 1
        if self._when == "after":
            BatchCommitter.commit(batches, transaction)
        else:
            transaction.flush()
        raise self._error


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [NOT_READY, IN_DOUBT], ids=["not ready", "in doubt"])
async def test_a_request_is_created_once_despite_the_error(
    error: Exception, when: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    with database_servers.migrated("mariadb", tmp_path) as url:
        store = await Store.open(url, OPTIONS)
        fault = Fault(store, error, when)
        created = await asyncio.gather(*(create(store) for _ in range(3)))
        assert fault.count == 1
        found: Any = [await store.get_request(request.id, with_job_chain=False) for request in created]
        assert [request.id for request in found] == [request.id for request in created]
        await store.close()
