"""A store on SQLite, for tests of what does not depend on the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spincycle_server.store import Store
from tests.databases import OPTIONS, migrated_sqlite
from tests.store.samples import RUNNER


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store with a live runner."""
    store = await Store.open(migrated_sqlite(tmp_path / "watch.db"), OPTIONS)
    await store.renew_runner(RUNNER, 3600.0, draining=False)
    yield store
    await store.close()
