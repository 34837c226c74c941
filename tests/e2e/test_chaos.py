"""Whatever dies and whenever: each accepted request comes to its right end, and no job is done twice.

SPINCYCLE_CHAOS_SEED, SPINCYCLE_CHAOS_MINUTES and SPINCYCLE_CHAOS_DATABASE make a longer run of one
seed on one database, as `make chaos` does.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from random import SystemRandom

import pytest

from tests.databases import DATABASES, database_server
from tests.e2e.chaos import System, run_chaos
from tests.limits import REQUEST_END
from tests.store.conftest import migrate

SEED = int(os.environ.get("SPINCYCLE_CHAOS_SEED") or SystemRandom().randrange(1 << 30))
SECONDS = 60 * float(os.environ.get("SPINCYCLE_CHAOS_MINUTES") or 0.6)
REQUESTS = max(300, int(SECONDS * 5))
CHOSEN = os.environ.get("SPINCYCLE_CHAOS_DATABASE") or ",".join(DATABASES)


@pytest.mark.chaos
@pytest.mark.timeout(SECONDS * 3 + 4 * REQUEST_END)
@pytest.mark.parametrize("kind", CHOSEN.split(","))
def test_chaos(kind: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        database, url = None, ""
        if kind != "sqlite":
            database = stack.enter_context(database_server(kind))
            url = database.fresh_database()
            migrate(url)
        # An SQLite file is for one Request Manager.
        managers = 1 if database is None else 2
        system = System(tmp_path, database=database, url=url, managers=managers, runners=3, stack=stack)
        run_chaos(system, seed=SEED, requests=REQUESTS, seconds=SECONDS)
