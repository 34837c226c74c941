"""A store on each database, without faults and with failing commits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy.engine import Connection

from spincycle_server.store import Store
from tests.databases import OPTIONS, SharedServers, engine_beside, migrate
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


@pytest.fixture
def small_packets(database_servers: SharedServers) -> Iterator[str]:
    """An empty MariaDB database that takes packets of up to 1 MiB. Yields its URL."""
    server = database_servers.get("mariadb")
    server.execute("SET GLOBAL max_allowed_packet = 1048576")
    try:
        url = database_servers.url("mariadb", server.directory)
        migrate(url)
        yield url
    finally:
        server.execute("SET GLOBAL max_allowed_packet = 67108864")
