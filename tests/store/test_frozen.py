"""A process that freezes during a transaction keeps its locks only until a timeout."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import select

from spincycle_grpc.state import State
from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.store import DatabaseOptions, Store
from spincycle_server.store.schema import requests
from tests.databases import OPTIONS, SharedServers, migrate
from tests.store.samples import RUNNER, create


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
async def test_the_locks_of_a_frozen_process_are_released_after_its_timeout(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    url = database_servers.url(kind, tmp_path)
    migrate(url)
    store = await Store.open(url, OPTIONS)
    made = await create(store, None)
    engine = make_engine(parse_url(url), DatabaseOptions(timeout=1.0), connections=1, reads=False)
    frozen = await asyncio.to_thread(engine.connect)
    locked = select(requests.c.state).where(requests.c.request_id == made.id).with_for_update()
    await asyncio.to_thread(frozen.execute, locked)
    assert await store.assign(made.id, RUNNER, expected_state=State.PENDING)
    frozen.invalidate()
    engine.dispose()
    await store.close()
