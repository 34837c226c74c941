"""The arithmetic of an original's Job Runner with suspended chains, on the JSON of the rows.

It is written from the description of the original alone. A chain is a dict, as in the column
`suspended_job_chain`.
"""

from __future__ import annotations

import copy
from typing import Any

PENDING, COMPLETE, FAIL, STOPPED = 1, 3, 4, 6


class RunnerPanicError(Exception):
    """The Job Runner of the original dies."""


class OriginalChain:
    """A chain on a Job Runner of the original."""

    def __init__(self, suspended: dict[str, Any]) -> None:
        self._chain = copy.deepcopy(suspended)
        for name in ("totalJobTries", "latestRunJobTries", "sequenceTries"):
            self._chain[name] = dict(self._chain.get(name) or {})
        # The original knows no other fields.
        self._chain = {
            name: self._chain[name]
            for name in ("requestId", "jobChain", "totalJobTries", "latestRunJobTries", "sequenceTries")
        }
        self.jobs: dict[str, dict[str, Any]] = self._chain["jobChain"]["jobs"]
        self.latest: dict[str, int] = self._chain["latestRunJobTries"]
        for job_id, job in self.jobs.items():
            if job["state"] == STOPPED:
                count = self.latest.get(job_id, 0)
                if count - 1 < 0:
                    raise RunnerPanicError(f"cur {count} + delta -1 < 0")
                self.latest[job_id] = count - 1
                job["state"] = PENDING

    def tries_left(self, job_id: str) -> int:
        """Returns how often a job may be tried before it fails."""
        return 1 + int(self.jobs[job_id]["retry"]) - self.latest.get(job_id, 0)

    def try_job(self, job_id: str, state: int) -> int:
        """Runs a try to its end, which may be STOPPED. Returns the number of the try."""
        assert self.tries_left(job_id) > 0, "the original does not try the job again"
        total: dict[str, int] = self._chain["totalJobTries"]
        total[job_id] = total.get(job_id, 0) + 1
        self.latest[job_id] = self.latest.get(job_id, 0) + 1
        if state != FAIL or not self.tries_left(job_id):
            self.jobs[job_id]["state"] = state
        return total[job_id]

    def suspended(self) -> dict[str, Any]:
        """Returns the chain to store."""
        chain = copy.deepcopy(self._chain)
        chain["jobChain"]["finishedJobs"] = sum(job["state"] == COMPLETE for job in self.jobs.values())
        chain["jobChain"]["state"] = 7
        return chain
