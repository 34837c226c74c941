"""Job types that work on hosts, which are files in a directory. Servers load `tests.host_jobs:factory`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spincycle_grpc.jobs import Job, JobTypes, Return
from spincycle_grpc.state import State

HOSTS = "TEST_HOSTS"
"""Environment variable with the directory."""


@dataclass
class HostJob(Job):
    """Fails while the file `HOST.bad` exists, and waits while `TYPE-HOST.gate` exists.

    `HOST.bad` may contain the error. The job writes its start and its end to the file `done`.
    """

    host: str = ""
    _stopped: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False, compare=False)

    async def run(self, job_data: dict[str, Any]) -> Return:
        directory = Path(os.environ[HOSTS])
        self._write("start")
        gate = directory / f"{self.id.type}-{self.host}.gate"
        while gate.exists() and not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), 0.05)
        if self._stopped.is_set():
            return Return(State.STOPPED)
        bad = directory / f"{self.host}.bad"
        if bad.exists():
            error = bad.read_bytes().decode() or "exit status 1"
            return Return(State.FAIL, 1, error, stderr=f"{self.host}: the disk is full\n")
        self._write("end")
        return Return()

    async def stop(self) -> None:
        self._stopped.set()

    def _write(self, event: str) -> None:
        file = os.open(Path(os.environ[HOSTS]) / "done", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(
                file, f"{event} {self.id.type} {self.host}\n".encode()
            )  # One write keeps the line whole.
        finally:
            os.close(file)


def what_was_done(directory: Path) -> Counter[str]:
    """Returns how often each event happened, for example "end drain web7"."""
    done = directory / "done"
    return Counter(line.strip() for line in done.read_text().splitlines()) if done.exists() else Counter()


factory = JobTypes({"drain": HostJob, "restart": HostJob, "verify": HostJob})
