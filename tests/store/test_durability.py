"""Durability: the store answers only after the commit, and the commit is on disk."""

from __future__ import annotations

import asyncio
import threading

from sqlalchemy import text
from structlog.testing import capture_logs

from spincycle_server.database.transaction import Transaction
from spincycle_server.store import Store
from tests.databases import OPTIONS, database_server, migrate
from tests.limits import STEP
from tests.store.samples import create, waiting_ids


async def test_a_write_is_answered_after_its_commit(migrated_url: str) -> None:
    store = await Store.open(migrated_url, OPTIONS)
    reached, let = threading.Event(), threading.Event()
    commit = store._creator.batches.commit

    def held(transaction: Transaction) -> None:
        transaction.flush()
        reached.set()
        assert let.wait(STEP)
        commit(transaction)

    store._creator.batches.commit = held  # type: ignore[method-assign]
    creating = asyncio.create_task(create(store))
    assert await asyncio.to_thread(reached.wait, STEP)
    assert not creating.done()
    assert await waiting_ids(store) == []  # Nobody else sees it yet.
    let.set()
    made = await creating
    assert (await store.get_request(made.id, with_job_chain=False)).id == made.id
    await store.close()


async def test_commits_are_flushed_to_the_disk(migrated_url: str) -> None:
    """By what each database promises for these settings."""
    store = await Store.open(migrated_url, OPTIONS)
    with store._engine.connect() as connection:
        settings = {
            "sqlite": ("PRAGMA synchronous", 2),
            "mysql": ("SELECT @@innodb_flush_log_at_trx_commit", 1),
            "postgresql": ("SHOW synchronous_commit", "on"),
        }
        query, expected = settings[connection.dialect.name]
        assert connection.scalar(text(query)) == expected
    await store.close()


async def test_opening_a_database_that_is_not_durable_logs_a_warning() -> None:
    with database_server("mariadb") as server:
        url = server.fresh_database()
        migrate(url)
        for value, told in ((1, 0), (2, 1)):
            server.execute(f"SET GLOBAL innodb_flush_log_at_trx_commit = {value}")
            with capture_logs() as logs:
                await (await Store.open(url, OPTIONS)).close()
            said = [log for log in logs if "not durable" in log["event"]]
            assert len(said) == told
