"""A job type that keeps a journal, and one that blocks in `create`.

Servers load `tests.journal_jobs:factory`.

All processes of a test append to one journal file. A job reads its earlier failures from the journal, so it
fails as often as its spec says even if servers die. A job does not know its try number. The job log has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spincycle_grpc.jobs import Job, JobTypes, Return
from spincycle_grpc.state import State
from tests.limits import STEP

JOURNAL = "TEST_JOURNAL"
"""Environment variable with the path of the journal file."""


@dataclass
class Journal(Job):
    """Sleeps, and records its start and its end in the journal.

    Attributes:
        ms: Milliseconds to sleep.
        times: The number of tries that fail before one is COMPLETE.
    """

    ms: str = "0"
    times: str = "0"
    _stopped: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False, compare=False)

    async def run(self, job_data: dict[str, Any]) -> Return:
        own = [line for line in read_journal(self._own_file()) if line["job"] == self.id.id]
        failed = sum(line["event"] == "FAIL" for line in own)
        self._write("start")
        try:
            await asyncio.wait_for(self._stopped.wait(), int(self.ms) / 1000)
        except TimeoutError:
            state = State.COMPLETE if failed >= int(self.times) else State.FAIL
        else:
            state = State.STOPPED
        self._write(state.name)
        job_data[self.id.name] = "done"
        return Return(state, 0 if state is State.COMPLETE else 1)

    async def stop(self) -> None:
        self._stopped.set()

    def _write(self, event: str) -> None:
        line = {
            "request": self.id.request_id,
            "job": self.id.id,
            "name": self.id.name,
            "event": event,
            # Servers may run with a wrong clock, which the job log shows. All lines have the right time too.
            "time": time.clock_gettime_ns(time.CLOCK_REALTIME),
            "clock": time.time_ns(),
            "pid": os.getpid(),
        }
        # Each request also has a file of its own, because the common file gets long.
        for path in (self._own_file(), Path(os.environ[JOURNAL])):
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                os.write(file, json.dumps(line).encode() + b"\n")  # A single write keeps the line whole.
            finally:
                os.close(file)

    def _own_file(self) -> Path:
        directory = Path(f"{os.environ[JOURNAL]}.requests")
        directory.mkdir(exist_ok=True)
        return directory / self.id.request_id


def read_journal(path: str | Path | None = None, about: str = "") -> list[dict[str, Any]]:
    """Returns the parsed lines in file order: all of them, or those that contain `about`."""
    try:
        lines = Path(path or os.environ[JOURNAL]).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if about.encode() in line]


@dataclass
class Held(Journal):
    """A job that runs until the file `gate` exists, and keeps the journal.

    Attributes:
        gate: The path of the file.
    """

    gate: str = ""

    async def run(self, job_data: dict[str, Any]) -> Return:
        self._write("start")
        while not self._is_open() and not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), 0.02)
        state = State.STOPPED if self._stopped.is_set() else State.COMPLETE
        self._write(state.name)
        return Return(state)

    def _is_open(self) -> bool:
        return Path(self.gate).exists()


@dataclass
class Gated(Job):
    """A job whose `create` blocks until the file `gate` exists, or until `limits.STEP` has passed.

    When it starts to wait, it makes a file with the suffix `.waited-for`.
    """

    gate: str = ""

    def create(self, job_args: dict[str, Any]) -> None:
        super().create(job_args)
        Path(f"{self.gate}.waited-for").touch()
        deadline = time.monotonic() + STEP
        while not Path(self.gate).exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    async def run(self, job_data: dict[str, Any]) -> Return:
        return Return()


POISON_STATUS = 9


@dataclass
class Poison(Journal):
    """A job that ends its runner's process."""

    async def run(self, job_data: dict[str, Any]) -> Return:
        self._write("poison")
        os._exit(POISON_STATUS)


TYPES: dict[str, type[Job]] = {
    "journal": Journal,
    "gated": Gated,
    "held": Held,
    "poison": Poison,
    "newer": Journal,
}

UNKNOWN = "TEST_UNKNOWN_TYPES"
"""Environment variable with types of a later version, which a server does not know, separated by commas."""

factory = JobTypes(
    {name: kind for name, kind in TYPES.items() if name not in os.environ.get(UNKNOWN, "").split(",")}
)
