"""The ids of audit events differ among processes, also among those that were forked from one."""

from __future__ import annotations

import subprocess
import sys

from tests.limits import COMMAND

PROGRAM = """
import os
from spincycle_server.store.audit import new_event_id
for _ in range(3):
    if not os.fork():
        print(new_event_id(), flush=True)
        os._exit(0)
    os.wait()
print(new_event_id())
"""


def test_forked_processes_do_not_repeat_ids() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True, timeout=COMMAND
    )
    ids = done.stdout.split()
    assert len(ids) == 4, done.stderr
    assert len(set(ids)) == 4
