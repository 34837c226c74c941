"""The job types of the recordings, which most tests use. Servers load `tests.fixture_jobs:factory`."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any

from spincycle_grpc.jobs import Job, JobTypes, Return
from spincycle_grpc.state import State


def _to_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class FixtureJob(Job):
    """A job whose bytes are its args as JSON."""

    def __init__(self) -> None:
        self.args: dict[str, Any] = {}

    def create(self, job_args: dict[str, Any]) -> None:
        self.args = dict(job_args)

    def serialize(self) -> bytes:
        return _to_json(self.args).encode()

    def deserialize(self, data: bytes) -> None:
        self.args = json.loads(data)

    def text(self, name: str) -> str:
        """Returns an arg, or "" if it is missing or not text."""
        value = self.args.get(name)
        return value if isinstance(value, str) else ""


class Echo(FixtureJob):
    """Returns the args out and err as stdout and stderr."""

    async def run(self, job_data: dict[str, Any]) -> Return:
        return Return(stdout=self.text("out"), stderr=self.text("err"))


class SetArgs(FixtureJob):
    """Sets job args from its arg `json`, the text of a JSON object."""

    def create(self, job_args: dict[str, Any]) -> None:
        super().create(job_args)
        job_args.update(json.loads(self.text("json")))

    async def run(self, job_data: dict[str, Any]) -> Return:
        return Return()


class SetData(FixtureJob):
    """Adds its args to the job data."""

    def run(self, job_data: dict[str, Any]) -> Return:
        job_data.update(self.args)
        return Return()


class ShowData(FixtureJob):
    """Writes the job data to stdout as JSON."""

    def run(self, job_data: dict[str, Any]) -> Return:
        return Return(stdout=_to_json(job_data))


_tries: Counter[tuple[str, str]] = Counter()
_tries_lock = threading.Lock()


class FailTimes(FixtureJob):
    """Fails the first `times` tries of a job. This process counts them across tries of its sequence."""

    async def run(self, job_data: dict[str, Any]) -> Return:
        with _tries_lock:
            _tries[self.id.request_id, self.id.id] += 1
            number = _tries[self.id.request_id, self.id.id]
        stdout = f"try {number}"
        if number > int(self.text("times")):
            return Return(stdout=stdout)
        return Return(State.FAIL, 2, "failed on purpose", stdout, "boom")


class Panic(FixtureJob):
    """Raises an exception in `run`."""

    def run(self, job_data: dict[str, Any]) -> Return:
        raise RuntimeError("forced panic")


factory = JobTypes(
    {
        "echo": Echo,
        "set-args": SetArgs,
        "set-data": SetData,
        "show-data": ShowData,
        "fail-times": FailTimes,
        "panic": Panic,
    }
)
