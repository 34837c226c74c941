"""Job types for tests of the builder. The type of a job says what its `create` does."""

from __future__ import annotations

import json
from typing import Any

from spincycle_grpc.jobs import Job, JobId, Return, UnknownJobTypeError


class Keep(Job):
    """Keeps its args as its bytes, then changes every list and map in them."""

    def __init__(self) -> None:
        self.data = b""

    def create(self, job_args: dict[str, Any]) -> None:
        self.data = json.dumps(job_args, sort_keys=True).encode()
        for value in list(job_args.values()):
            if isinstance(value, list):
                value.append("spoilt")
            elif isinstance(value, dict):
                value["spoilt"] = True

    def serialize(self) -> bytes:
        return self.data

    def run(self, job_data: dict[str, Any]) -> Return:
        return Return()


class SetArg(Keep):
    """Sets the job arg `out`."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def create(self, job_args: dict[str, Any]) -> None:
        super().create(job_args)
        job_args["out"] = self.value


class Plain(Job):
    """Has no args and sets none."""

    def run(self, job_data: dict[str, Any]) -> Return:
        return Return()


def factory(job_id: JobId) -> Job:
    """Knows `noop`, `keep` and `set JSON`, which sets the job arg `out` to that JSON."""
    if job_id.type == "noop":
        return Plain()
    if job_id.type == "keep":
        return Keep()
    if job_id.type.startswith("set "):
        return SetArg(json.loads(job_id.type.removeprefix("set ")))
    raise UnknownJobTypeError(job_id.type)
