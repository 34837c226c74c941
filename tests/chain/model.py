"""A slow model of a running chain, written from the rules: it looks at the whole chain after each event."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from spincycle_grpc.duration import parse_duration
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import JobChain

GOING_BACK = "going back"
WAITING = "waiting"


def data_after(job_id: str, number: int, before: dict[str, Any]) -> dict[str, Any]:
    """Returns the data that a try of a job leaves: some keys that are its own, and one that all jobs set."""
    return {**before, job_id: number, "last": job_id}


@dataclass
class Model:
    chain: JobChain
    states: dict[str, State] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    run_tries: dict[str, int] = field(default_factory=dict)
    between: set[str] = field(default_factory=set)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    sequence_tries: dict[str, int] = field(default_factory=dict)
    sequences: dict[str, str] = field(default_factory=dict)
    mode: str = "running"

    def __post_init__(self) -> None:
        for job_id, job in self.chain.jobs.items():
            self.states[job_id] = State.PENDING
            self.tries[job_id] = self.run_tries[job_id] = 0
            self.data[job_id] = {}
            if job.sequence_id == job_id:
                self.sequence_tries[job_id] = 0
        self.before: dict[str, list[str]] = {job_id: [] for job_id in self.chain.jobs}
        for job_id, ids in self.chain.adjacency_list.items():
            for child in ids.ids:
                self.before[child].append(job_id)
        self.settle()

    def around(self, sequence_id: str) -> list[str]:
        """The sequence and those around it, the innermost first."""
        found = []
        while sequence_id:
            found.append(sequence_id)
            sequence_id = self.chain.jobs[sequence_id].parent_sequence_id
        return found

    def jobs_in(self, sequence_id: str) -> list[str]:
        return [
            job_id for job_id, job in self.chain.jobs.items() if sequence_id in self.around(job.sequence_id)
        ]

    def running(self) -> list[str]:
        return [job_id for job_id, state in self.states.items() if state is State.RUNNING]

    def finished(self) -> int:
        return sum(state is State.COMPLETE for state in self.states.values())

    def finish(self, job_id: str, state: State) -> None:
        job = self.chain.jobs[job_id]
        if state is State.STOPPED:
            self.states[job_id] = State.STOPPED
            self.run_tries[job_id] -= 1
        elif state is State.COMPLETE:
            self.states[job_id] = state
            if job.name != "noop":
                self.data[job_id] = data_after(job_id, self.tries[job_id], self.data[job_id])
            for child in self.before:
                if job_id in self.before[child]:
                    self.data[child].update(self.data[job_id])
        elif self.mode == "stopping" or self.run_tries[job_id] > job.retry:
            self.states[job_id] = State.FAIL
            if self.mode == "running":
                self.fail_sequence(job.sequence_id)
        elif self.mode == "suspending":
            self.states[job_id] = State.STOPPED
        else:
            self.between.add(job_id)
            if not job.retry_wait:
                self.again(job_id)
        self.settle()

    def fail_sequence(self, sequence_id: str) -> None:
        """The innermost sequence with tries left goes back, unless one that it is in does already."""
        for around in self.around(sequence_id):
            if any(self.sequences.get(one) for one in self.around(around)):
                break
            if self.sequence_tries[around] <= self.chain.jobs[around].sequence_retry:
                self.go_back(around)
                break

    def go_back(self, sequence_id: str) -> None:
        for inner in list(self.sequences):
            if sequence_id in self.around(inner):
                del self.sequences[inner]
        self.sequences[sequence_id] = GOING_BACK

    def again(self, job_id: str) -> None:
        self.between.discard(job_id)
        self.tries[job_id] += 1
        self.run_tries[job_id] += 1

    def job_wait_over(self, job_id: str) -> None:
        if job_id in self.between:
            self.again(job_id)
        self.settle()

    def sequence_wait_over(self, sequence_id: str) -> None:
        if self.sequences.get(sequence_id) == WAITING:
            del self.sequences[sequence_id]
        self.settle()

    def end(self, mode: str) -> None:
        self.mode = mode
        self.sequences = {}
        for job_id in list(self.between):
            self.states[job_id] = State.STOPPED
        self.between = set()

    def crash(self) -> None:
        """Tries that ran are as if they had not begun; the rest goes on."""
        for job_id in self.running():
            if job_id not in self.between:
                self.tries[job_id] -= 1
                self.run_tries[job_id] -= 1
            self.states[job_id] = State.STOPPED
        self.go_on()

    def go_on(self) -> None:
        """A chain that was suspended or lost is resumed."""
        self.mode = "running"
        self.between, self.sequences = set(), {}
        for job_id, state in self.states.items():
            if state is State.STOPPED:
                self.states[job_id] = State.PENDING
            elif state is State.FAIL:
                self.fail_sequence(self.chain.jobs[job_id].sequence_id)
        self.settle()

    def settle(self) -> None:
        if self.mode != "running":
            return
        for sequence_id, what in list(self.sequences.items()):
            inside = self.jobs_in(sequence_id)
            if what == GOING_BACK and not any(self.states[job_id] is State.RUNNING for job_id in inside):
                for job_id in inside:
                    self.states[job_id] = State.PENDING
                    self.run_tries[job_id] = 0
                    if job_id in self.sequence_tries and job_id != sequence_id:
                        self.sequence_tries[job_id] = 0
                self.sequence_tries[sequence_id] += 1
                if parse_duration(self.chain.jobs[sequence_id].sequence_retry_wait or "0"):
                    self.sequences[sequence_id] = WAITING
                else:
                    del self.sequences[sequence_id]
        for job_id, job in self.chain.jobs.items():
            can_run = self.states[job_id] is State.PENDING
            can_run = can_run and all(self.states[one] is State.COMPLETE for one in self.before[job_id])
            if can_run and not any(self.sequences.get(one) for one in self.around(job.sequence_id)):
                self.states[job_id] = State.RUNNING
                if job_id in self.sequence_tries and not self.sequence_tries[job_id]:
                    self.sequence_tries[job_id] = 1
                self.again(job_id)

    def done(self) -> State | None:
        if self.running() or self.sequences:
            return None
        if self.finished() == len(self.states):
            return State.COMPLETE
        if self.mode == "suspending":
            later = deepcopy(self)
            later.go_on()
            return later.done() or State.SUSPENDED
        if self.mode == "stopping":
            return State.FAIL if State.FAIL in self.states.values() else State.STOPPED
        return State.FAIL
