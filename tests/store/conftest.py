"""A store on each database, without faults and with failing commits."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from spincycle_server.store import Store
from tests.databases import OPTIONS
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
