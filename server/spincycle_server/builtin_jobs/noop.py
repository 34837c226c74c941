"""The job that does nothing and only joins other jobs."""

from __future__ import annotations

from typing import Any

from spincycle_grpc.jobs import Job, Return

_DONE = Return()


class Noop(Job):
    """Completes at once. It has no args, no bytes and no effects, so it may run twice."""

    def create(self, job_args: dict[str, Any]) -> None:
        """Takes no args."""

    def serialize(self) -> bytes:
        """Returns no bytes."""
        return b""

    def deserialize(self, data: bytes) -> None:
        """Takes no bytes."""

    async def run(self, job_data: dict[str, Any]) -> Return:
        """Does nothing."""
        return _DONE
