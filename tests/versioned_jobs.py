"""A job factory in two versions: an environment variable says which job types it knows.

Servers load `tests.versioned_jobs:factory`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spincycle_grpc.jobs import Job, JobId, Return, UnknownJobTypeError
from spincycle_grpc.state import State

TYPES = "TEST_JOB_TYPES"
"""Environment variable with the known job types, separated by commas."""

GATE = "TEST_GATE"
"""Environment variable with the path of a file. Jobs of the type `gate` run until it exists."""


def is_open() -> bool:
    """Whether the gate is open."""
    return Path(os.environ[GATE]).exists()


@dataclass
class Quick(Job):
    """Ends at once."""

    async def run(self, job_data: dict[str, Any]) -> Return:
        return Return(stdout=os.environ[TYPES])


@dataclass
class Gate(Job):
    """Runs until the gate is open."""

    _stopped: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False, compare=False)

    async def run(self, job_data: dict[str, Any]) -> Return:
        while not is_open():
            try:
                await asyncio.wait_for(self._stopped.wait(), 0.02)
            except TimeoutError:
                continue
            return Return(state=State.STOPPED)
        return Return()

    async def stop(self) -> None:
        self._stopped.set()


def factory(job_id: JobId) -> Job:
    """Makes a job of a type that this version knows. Hangs for the type `hang`."""
    if job_id.type == "hang":
        threading.Event().wait()
    if job_id.type not in os.environ[TYPES].split(","):
        raise UnknownJobTypeError(job_id.type)
    return Gate() if job_id.type == "gate" else Quick()
