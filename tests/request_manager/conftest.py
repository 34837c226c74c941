"""The store that tests of the Request Manager start from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spincycle_server.store import Store
from tests.databases import migrated_sqlite
from tests.store.samples import RUNNER


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store that knows one runner."""
    opened = await Store.open(migrated_sqlite(tmp_path / "store.db"))
    await opened.renew_runner(RUNNER, 3600, draining=False)
    yield opened
    await opened.close()
