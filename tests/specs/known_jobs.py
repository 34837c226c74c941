"""A job factory that knows the one type of the faulty specs."""

from __future__ import annotations

from typing import Any

from spincycle_grpc.jobs import Job, JobTypes, Return


class Known(Job):
    def run(self, job_data: dict[str, Any]) -> Return:
        return Return()


factory = JobTypes({"known": Known})
