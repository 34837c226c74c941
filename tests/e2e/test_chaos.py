"""Whichever process dies at whatever time, each accepted request ends correctly and no job is done twice.

`make chaos` sets SPINCYCLE_CHAOS_SEED, SPINCYCLE_CHAOS_MINUTES, and SPINCYCLE_CHAOS_DATABASE to choose
the seed, the duration, and the database.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from random import SystemRandom

import pytest

from tests.databases import DATABASES, database_server, migrate
from tests.e2e.chaos import run_chaos
from tests.e2e.chaos_system import System
from tests.limits import REQUEST_END

SEED = int(os.environ.get("SPINCYCLE_CHAOS_SEED") or SystemRandom().randrange(1 << 30))
SECONDS = 60 * float(os.environ.get("SPINCYCLE_CHAOS_MINUTES") or 0.6)
REQUESTS = max(300, int(SECONDS * 5))
CHOSEN = os.environ.get("SPINCYCLE_CHAOS_DATABASE") or ",".join(DATABASES)


@pytest.mark.chaos
@pytest.mark.timeout(SECONDS * 3 + 4 * REQUEST_END)
@pytest.mark.parametrize("kind", CHOSEN.split(","))
def test_requests_end_correctly_while_servers_are_killed_paused_and_restarted(
    kind: str, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        database, url = None, ""
        if kind != "sqlite":
            database = stack.enter_context(database_server(kind))
            url = database.fresh_database()
            migrate(url)
        # Only one Request Manager can use an SQLite file.
        managers = 1 if database is None else 2
        system = System(tmp_path, database=database, url=url, managers=managers, runners=3, stack=stack)
        run_chaos(system, seed=SEED, requests=REQUESTS, seconds=SECONDS)
