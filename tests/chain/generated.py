"""Random job chains: nested sequences with retries, and what each try of each job will come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from spincycle_grpc.state import State
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.job_pb2 import Job, JobChain
from spincycle_grpc.v1.runner_reports_pb2 import TryReport


def tried(
    job_id: str,
    number: int,
    state: State,
    *,
    sequence_try: int = 1,
    data: Mapping[str, Any] | None = None,
    from_to: tuple[int, int] = (0, 0),
) -> TryReport:
    """Returns the report of a finished try, which began and ended at the given nanoseconds."""
    entry = JobLog(job_id=job_id, state=state.value, started_at=from_to[0], finished_at=from_to[1])
    setattr(entry, "try", number)
    return TryReport(
        entry=entry, sequence_try=sequence_try, job_data=None if data is None else to_struct(data)
    )


@dataclass
class ChainMaker:
    """Makes one random chain. The ids of jobs are told apart by number, so that failures can be read."""

    random: Random
    most_nodes: int = 4
    deepest: int = 3
    chain: JobChain = field(
        default_factory=lambda: JobChain(request_id="request", state=state_pb2.STATE_PENDING)
    )

    def make(self) -> JobChain:
        self._sequence("", self.deepest, retry=0)
        return self.chain

    def _job(self, name: str, sequence_id: str, parent_id: str, *, retry: int = 0) -> Job:
        job_id = f"{len(self.chain.jobs):04d}"
        job = self.chain.jobs[job_id]
        job.id, job.name, job.type = job_id, name, "noop" if name == "noop" else "work"
        job.state = state_pb2.STATE_PENDING
        job.sequence_id, job.parent_sequence_id = sequence_id or job_id, parent_id
        if retry:
            job.retry = retry
            job.retry_wait = self.random.choice(["", "1s"])
        return job

    def _sequence(self, parent_id: str, depth: int, *, retry: int) -> tuple[str, str]:
        """Adds a sequence; returns the ids of its first and its last job."""
        first = self._job("noop", "", parent_id)
        if retry:
            first.sequence_retry = retry
            first.sequence_retry_wait = self.random.choice(["", "1s"])
        nodes: list[tuple[str, str]] = []
        leaves: set[str] = set()
        for _ in range(self.random.randint(0, self.most_nodes)):
            before = [last for _, last in nodes if self.random.random() < 0.4]
            if depth and self.random.random() < 0.35:
                node = self._sequence(first.id, depth - 1, retry=self.random.choice([0, 0, 1, 2]))
            else:
                job = self._job("job", first.id, parent_id, retry=self.random.choice([0, 0, 1, 2]))
                node = (job.id, job.id)
            for job_id in before or [first.id]:
                self._edge(job_id, node[0])
                leaves.discard(job_id)
            leaves.add(node[1])
            nodes.append(node)
        last = self._job("noop", first.id, parent_id)
        for job_id in sorted(leaves) or [first.id]:
            self._edge(job_id, last.id)
        return first.id, last.id

    def _edge(self, before: str, after: str) -> None:
        self.chain.adjacency_list[before].ids.append(after)
