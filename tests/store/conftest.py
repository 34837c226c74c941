"""A store on each database, without faults and with failing commits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy.engine import Connection

from spincycle_server.store import Store
from tests.databases import OPTIONS, engine_beside
from tests.store.faults import FAULTS, WriteFaults


@pytest.fixture(params=FAULTS)
async def store(request: pytest.FixtureRequest, migrated_url: str) -> AsyncIterator[Store]:
    """An empty store; with faults, every other commit fails before or after it happened."""
    store = await Store.open(migrated_url, OPTIONS)
    faults = WriteFaults(store, request.param) if request.param != "none" else None
    yield store
    await store.close()
    if faults is not None and store.commits:
        assert faults.count, "no commit failed"


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    """A connection to an empty database, of each kind."""
    with engine_beside(migrated_url) as engine, engine.connect() as connection:
        yield connection
        connection.rollback()
