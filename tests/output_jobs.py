"""Job types that write output step by step. Servers load `tests.output_jobs:factory`.

A step begins when its file is in the directory of the job, so a test decides when a job goes on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spincycle_grpc.jobs import Job, JobTypes, Return
from spincycle_grpc.state import State

_POLL = 0.02


@dataclass
class Talk(Job):
    """Writes "one", and "two" once the file `go` is in the directory, from an async `run`."""

    directory: str
    _stopped: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False, compare=False)

    async def run(self, job_data: dict[str, Any]) -> Return:
        self.write("one\n")
        self.write("warning é\n", stream="stderr")
        while not (Path(self.directory) / "go").exists():
            if self._stopped.is_set():
                self.write("stopped")
                return Return(State.STOPPED)
            await asyncio.sleep(_POLL)
        self.write("two\n")
        return Return(stdout="three\n")

    async def stop(self) -> None:
        self._stopped.set()


@dataclass
class Threads(Job):
    """Writes numbered lines from several threads at once, from a synchronous `run`."""

    threads: int = 4
    lines: int = 1000

    def run(self, job_data: dict[str, Any]) -> Return:
        def write(thread: int) -> None:
            for number in range(self.lines):
                self.write(f"{thread}:{number}\n", stream="stderr" if thread % 2 else "stdout")

        threads = [threading.Thread(target=write, args=(thread,)) for thread in range(self.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Return()


@dataclass
class Flood(Job):
    """Writes as fast as it can until the file `go` is in the directory, from a synchronous `run`."""

    directory: str

    def run(self, job_data: dict[str, Any]) -> Return:
        go = Path(self.directory) / "go"
        line = "x" * 999 + "\n"
        while not go.exists():
            for _ in range(1000):
                self.write(line)
            time.sleep(_POLL)
        self.write("the end\n")
        return Return()


@dataclass
class Count(Job):
    """Writes numbered lines, one every few milliseconds, until the file `go` is in the directory."""

    directory: str

    async def run(self, job_data: dict[str, Any]) -> Return:
        number = 0
        while not (Path(self.directory) / "go").exists():
            self.write(f"{number} é\n", stream="stderr" if number % 3 else "stdout")
            number += 1
            await asyncio.sleep(_POLL / 4)
        return Return()


factory = JobTypes({"talk": Talk, "threads": Threads, "flood": Flood, "count": Count})
