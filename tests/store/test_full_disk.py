"""A full disk: failed writes change nothing, and writes work again when there is room."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import event, select
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import UnavailableError
from spincycle_server.store import Store
from spincycle_server.store.schema import requests
from tests.databases import OPTIONS, engine_of
from tests.store.samples import a_log_entry, create


class Room:
    """Limits the pages of an SQLite file. A statement that needs more fails as on a full disk."""

    def __init__(self, store: Store) -> None:
        self.pages = 2**30
        event.listen(store._engine, "begin", self._begin)

    def _begin(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {self.pages}")

    def take(self) -> None:
        self.pages = 1  # SQLite raises the limit to the present number of pages.


async def test_writes_to_a_full_disk_change_nothing_and_work_again_when_there_is_room(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'spincycle.db'}"
    store = await Store.open(url, OPTIONS)
    room = Room(store)
    made = await create(store)
    room.take()
    kept = {made.id}
    refused = 0
    while refused < 3:
        results = await asyncio.gather(*(create(store) for _ in range(20)), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                assert isinstance(result, UnavailableError)
                refused += 1
            else:
                kept.add(result.id)
    with pytest.raises(UnavailableError, match="an operator must repair it"):
        await store.record_log(a_log_entry(made.id, stdout="o" * 1_000_000))
    assert ids_of(url) == kept
    assert await store.get_log(made.id) == []
    await store.ping()
    room.pages = 2**30
    entry = a_log_entry(made.id, stdout="o" * 1_000_000)
    assert await store.record_log(entry) == entry
    kept.add((await create(store)).id)
    await store.close()
    assert ids_of(url) == kept


def ids_of(url: str) -> set[str]:
    """Returns the ids of all requests, after checking that each has its archive."""
    engine = engine_of(url)
    with engine.connect() as connection:
        ids = set(connection.scalars(select(requests.c.request_id)))
        archived = set(connection.exec_driver_sql("SELECT request_id FROM request_archives").scalars())
    engine.dispose()
    assert ids == archived
    return ids
