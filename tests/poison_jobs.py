"""Jobs that end their server's process, and one that does not. Servers load `tests.poison_jobs:factory`.

Each job appends its name to a file before anything else, so that a test can count its runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spincycle_grpc.jobs import Job, JobTypes, Return

RUNS = "TEST_RUNS"
"""Environment variable with the path of the file."""


@dataclass
class Poison(Job):
    """Ends the process.

    Attributes:
        how: In which way.
    """

    how: str = "exit"

    def deserialize(self, data: bytes) -> None:
        """Ends the process when the runner makes the job, if it is told so."""
        super().deserialize(data)
        if self.how == "deserialize":
            _note(self.how)
            os._exit(1)

    def run(self, job_data: dict[str, Any]) -> Return:
        _note(self.how)
        if self.how == "segfault":
            ctypes.string_at(0)
        elif self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "later":
            time.sleep(1)
        os._exit(9)


@dataclass
class Innocent(Job):
    """Takes a moment, and is COMPLETE."""

    ms: str = "0"

    def run(self, job_data: dict[str, Any]) -> Return:
        _note("innocent")
        time.sleep(int(self.ms) / 1000)
        return Return()


def runs_of(path: Path, name: str) -> int:
    """Returns how often a job has run."""
    return path.read_text().splitlines().count(name) if path.exists() else 0


def _note(name: str) -> None:
    with Path(os.environ[RUNS]).open("a") as file:
        file.write(f"{name}\n")


factory = JobTypes({"poison": Poison, "innocent": Innocent})
