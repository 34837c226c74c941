"""The progress of a request: how many of its jobs are done, without the noops that only connect jobs."""

from __future__ import annotations

from typing import NamedTuple

from spincycle_grpc.v1.request_pb2 import Request


class Progress(NamedTuple):
    """How many jobs of a request are COMPLETE, and how many it has."""

    finished: int
    total: int

    @property
    def fraction(self) -> str:
        """The progress as "3/9"."""
        return f"{self.finished}/{self.total}"

    @property
    def sentence(self) -> str:
        """The progress as "3 of 9 jobs"."""
        return f"{self.finished} of {self.total} jobs"


def progress_of(request: Request) -> Progress:
    """Returns the progress of a request. Noops between sequences count only if they are not told apart."""
    if request.total_tasks:
        return Progress(request.finished_tasks, request.total_tasks)
    return Progress(request.finished_jobs, request.total_jobs)
