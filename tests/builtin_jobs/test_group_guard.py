"""The guard kills the groups that it knows when the process ends. Tests with servers are in tests/e2e."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from tests.e2e.waiting import eventually
from tests.limits import PROCESS_END

PROGRAM = """
import os, signal, subprocess, sys
from spincycle_server.builtin_jobs.group_guard import GroupGuard
guard = GroupGuard()
ENDED, KEPT = [subprocess.Popen(["sleep", "3600"], start_new_session=True).pid for _ in range(2)]
for group in (ENDED, KEPT):
    guard.add(group)
guard.remove(KEPT)
print(ENDED, KEPT, flush=True)
"""


@pytest.mark.parametrize(
    "end",
    [
        "os._exit(0)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "sys.exit()",
    ],
)
def test_groups_end_with_the_process_unless_they_are_removed(end: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM + end]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ended, kept = map(int, process.stdout.readline().split())
        process.wait(PROCESS_END)
    leader = psutil.Process(kept)
    try:
        eventually(lambda: not psutil.pid_exists(ended) or psutil.Process(ended).status() == "zombie")
        assert leader.status() != psutil.STATUS_ZOMBIE
    finally:
        leader.kill()
        leader.wait(PROCESS_END)
