"""Whatever dies and whenever: each accepted request comes to its right end, and no job is done twice.

SPINCYCLE_CHAOS_SEED and SPINCYCLE_CHAOS_MINUTES make a longer run of one seed, as `make chaos` does.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from random import SystemRandom

import pytest

from tests.e2e.chaos import System, run_chaos

SEED = int(os.environ.get("SPINCYCLE_CHAOS_SEED") or SystemRandom().randrange(1 << 30))
SECONDS = 60 * float(os.environ.get("SPINCYCLE_CHAOS_MINUTES", "0.6"))
REQUESTS = max(300, int(SECONDS * 8))


@pytest.mark.timeout(SECONDS * 3 + 300)
def test_chaos_on_sqlite(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        system = System(tmp_path, "", managers=1, runners=3, stack=stack)
        run_chaos(system, seed=SEED, requests=REQUESTS, seconds=SECONDS)
