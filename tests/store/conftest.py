"""Stores on each database, undisturbed and with commits that fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.store import DatabaseOptions, Store, migrations
from tests.databases import DATABASES, SharedServers
from tests.limits import ANSWER
from tests.store.faults import FAULTS, WriteFaults

OPTIONS = DatabaseOptions(timeout=ANSWER)


def engine_of(url: str) -> Engine:
    return make_engine(parse_url(url), OPTIONS, connections=2, reads=False)


def migrate(url: str) -> None:
    """Brings a database up to date."""
    engine = engine_of(url)
    with engine.begin() as connection:
        migrations.upgrade(connection)
    engine.dispose()


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    return database_servers.url(request.param, tmp_path)


@pytest.fixture(params=FAULTS)
async def store(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Store]:
    """A store, of which every other commit may fail."""
    migrate(database_url)
    store = await Store.open(database_url, OPTIONS)
    faults = WriteFaults(store, request.param) if request.param != "none" else None
    yield store
    await store.close()
    if faults is not None and store.commits:
        assert faults.count, "no commit failed"
