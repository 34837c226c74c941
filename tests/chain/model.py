"""A slow model of a running chain, written from the rules. It looks at the whole chain after each event."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from spincycle_grpc.duration import parse_duration
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import JobChain
from tests.chain.generated import ElementPlace, Structure, WindowPlace

GOING_BACK = "going back"
WAITING = "waiting"


def data_after(job_id: str, number: int, before: dict[str, Any]) -> dict[str, Any]:
    """Returns the data after a try of a job: a key of its own, and a key that all jobs set."""
    return {**before, job_id: number, "last": job_id}


@dataclass
class Model:
    chain: JobChain
    structure: Structure
    states: dict[str, State] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    run_tries: dict[str, int] = field(default_factory=dict)
    between: set[str] = field(default_factory=set)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    sequence_tries: dict[str, int] = field(default_factory=dict)
    sequences: dict[str, str] = field(default_factory=dict)
    admitted: set[ElementPlace] = field(default_factory=set)
    mode: str = "running"

    @classmethod
    def of(cls, chain: JobChain, structure: Structure) -> Model:
        """Returns the model of a chain that has just started."""
        model = cls(chain, structure)
        model._begin()
        return model

    def _begin(self) -> None:
        for job_id, job in self.chain.jobs.items():
            self.states[job_id] = State.PENDING
            self.tries[job_id] = self.run_tries[job_id] = 0
            self.data[job_id] = {}
            if job.sequence_id == job_id:
                self.sequence_tries[job_id] = 0
        self.settle()

    def running(self) -> list[str]:
        return [job_id for job_id, state in self.states.items() if state is State.RUNNING]

    def finished(self) -> int:
        return sum(state is State.COMPLETE for state in self.states.values())

    def finish(
        self, job_id: str, state: State, *, is_last: bool = False, is_taken_back: bool = False
    ) -> None:
        job = self.chain.jobs[job_id]
        if state is State.STOPPED:
            runs_again = is_taken_back and self.mode == "running"
            self.states[job_id] = State.PENDING if runs_again else State.STOPPED
            self.run_tries[job_id] -= 1
            self.admitted = {one for one in self.admitted if self.has_begun(one)}
        elif state is State.COMPLETE:
            self.states[job_id] = state
            if job_id not in self.structure.noops:
                self.data[job_id] = data_after(job_id, self.tries[job_id], self.data[job_id])
            for child in self.structure.children[job_id]:
                self.data[child].update(self.data[job_id])
        elif is_last or self.run_tries[job_id] > job.retry:
            self.states[job_id] = State.FAIL
            if self.mode == "running":
                self.fail_sequence(job.sequence_id)
        elif self.mode != "running":
            self.states[job_id] = State.STOPPED
        else:
            self.between.add(job_id)
            if not job.retry_wait:
                self.again(job_id)
        self.settle()

    def fail_sequence(self, sequence_id: str) -> None:
        """The innermost sequence with tries left is reset, unless a sequence around it is already."""
        for around in self.structure.around[sequence_id]:
            if any(self.sequences.get(one) for one in self.structure.around[around]):
                break
            if self.sequence_tries[around] <= self.chain.jobs[around].sequence_retry:
                self.go_back(around)
                break

    def go_back(self, sequence_id: str) -> None:
        for inner in list(self.sequences):
            if sequence_id in self.structure.around[inner]:
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

    def pause(self, not_begun: Iterable[str]) -> None:
        """Running tries go on, except those that have not begun. They do not count."""
        self.end("pausing")
        for job_id in not_begun:
            self.states[job_id] = State.PENDING
            self.tries[job_id] -= 1
            self.run_tries[job_id] -= 1

    def crash(self) -> None:
        """Running tries count as not begun, and the chain continues."""
        for job_id in self.running():
            if job_id not in self.between:
                self.tries[job_id] -= 1
                self.run_tries[job_id] -= 1
            self.states[job_id] = State.STOPPED
        self.resume()

    def resume(self) -> None:
        """Continues a suspended or lost chain. Parts of elements that an earlier request ran do not count."""
        self._make_pending()
        self.admitted = {
            one
            for window in self.structure.windows
            for one in window.elements
            if self.has_begun(one) and not self.is_held(one)
        }
        self.go_on()

    def unpause(self) -> None:
        """Continues a pausing chain, whose tries go on."""
        self._make_pending()
        self.admitted = {one for one in self.admitted if self.has_begun(one)}
        self.go_on()

    def _make_pending(self) -> None:
        for job_id, state in self.states.items():
            if state is State.STOPPED:
                self.states[job_id] = State.PENDING

    def has_begun(self, element: ElementPlace) -> bool:
        first = element.first
        is_tried_again = element.is_sequence and self.sequence_tries[first] > 1
        return self.states[first] is not State.PENDING or self.run_tries[first] > 0 or is_tried_again

    def is_held(self, element: ElementPlace) -> bool:
        """Whether only an earlier request has run a part of an element."""
        if any(self.tries[one] for one in element.jobs) or not element.sequences:
            return False
        if self.states[element.first] is not State.COMPLETE or self.states[element.last] is State.COMPLETE:
            return False
        parents = self.structure.parents[element.last]
        return element.is_sequence or any(self.states[one] is not State.COMPLETE for one in parents)

    def go_on(self) -> None:
        self.mode = "running"
        self.between, self.sequences = set(), {}
        for job_id, state in self.states.items():
            if state is State.FAIL:
                self.fail_sequence(self.chain.jobs[job_id].sequence_id)
        self.settle()

    def settle(self) -> None:
        if self.mode != "running":
            return
        for sequence_id, what in list(self.sequences.items()):
            inside = self.structure.jobs_in[sequence_id]
            if what == GOING_BACK and not any(self.states[job_id] is State.RUNNING for job_id in inside):
                for job_id in inside:
                    self.states[job_id] = State.PENDING
                    self.run_tries[job_id] = 0
                    if job_id in self.sequence_tries and job_id != sequence_id:
                        self.sequence_tries[job_id] = 0
                self.admitted -= {
                    element
                    for window in self.structure.windows
                    if sequence_id in self.structure.around[window.sequence]
                    for element in window.elements
                }
                self.sequence_tries[sequence_id] += 1
                if parse_duration(self.chain.jobs[sequence_id].sequence_retry_wait or "0"):
                    self.sequences[sequence_id] = WAITING
                else:
                    del self.sequences[sequence_id]
        self.run_ready()
        while any(map(self.admit, self.structure.windows)):
            self.run_ready()

    def run_ready(self) -> None:
        for job_id in self.structure.job_ids:
            if self.can_run(job_id) and self.may_begin(job_id):
                self.states[job_id] = State.RUNNING
                if job_id in self.sequence_tries and not self.sequence_tries[job_id]:
                    self.sequence_tries[job_id] = 1
                self.again(job_id)

    def can_run(self, job_id: str) -> bool:
        """Whether nothing but a window keeps a job from running."""
        if self.states[job_id] is not State.PENDING:
            return False
        around = self.structure.around[self.structure.sequence_of[job_id]]
        is_ready = all(self.states[one] is State.COMPLETE for one in self.structure.parents[job_id])
        return is_ready and not any(self.sequences.get(one) for one in around)

    def admit(self, window: WindowPlace) -> bool:
        """Admits the next element of a window, if one may begin and is not kept from it by another window."""
        waiting = [one for one in window.elements if one not in self.admitted]
        running = failed = 0
        for one in window.elements:
            if one in self.admitted and self.states[one.last] is not State.COMPLETE:
                is_stuck = self.is_stuck(one)
                running, failed = running + (not is_stuck), failed + is_stuck
        while waiting and self.states[waiting[0].last] is State.COMPLETE:
            waiting.pop(0)
        if not waiting or running >= window.most or 0 < window.stop_after <= failed:
            return False
        element = waiting[0]
        around = self.structure.around[window.sequence]
        outer = [one for one in self.structure.elements_of[element.first] if one is not element]
        is_frozen = any(self.sequences.get(one) for one in around) or not self.admitted.issuperset(outer)
        is_first_ready = all(
            self.states[one] is State.COMPLETE for one in self.structure.parents[element.first]
        )
        if is_frozen or not is_first_ready:
            return False
        self.admitted.add(element)
        return True

    def is_stuck(self, element: ElementPlace) -> bool:
        """Whether nothing in an element runs or will run."""
        if any(self.sequences.get(one) for one in element.sequences):
            return False
        if any(self.states[job_id] is State.RUNNING for job_id in element.jobs):
            return False
        return not any(self.can_run(one) and self.may_begin(one) for one in element.jobs)

    def may_begin(self, job_id: str) -> bool:
        return self.admitted.issuperset(self.structure.elements_of[job_id])

    def done(self) -> State | None:
        if self.running() or self.sequences:
            return None
        if self.finished() == len(self.states):
            return State.COMPLETE
        if self.mode in ("suspending", "pausing"):
            later = self._copied()
            later.resume()
            return later.done() or State.SUSPENDED
        if self.mode == "stopping":
            failed = [job_id for job_id, state in self.states.items() if state is State.FAIL]
            return State.STOPPED if all(map(self.would_run_again, failed)) else State.FAIL
        return State.FAIL

    def would_run_again(self, job_id: str) -> bool:
        """Whether a sequence around a failed job has tries left."""
        return any(
            self.sequence_tries[around] <= self.chain.jobs[around].sequence_retry
            for around in self.structure.around[self.structure.sequence_of[job_id]]
        )

    def _copied(self) -> Model:
        """Returns a copy that shares no mutable value with this one, except the data, which `go_on` keeps."""
        return replace(
            self,
            states=dict(self.states),
            tries=dict(self.tries),
            run_tries=dict(self.run_tries),
            between=set(self.between),
            sequence_tries=dict(self.sequence_tries),
            sequences=dict(self.sequences),
            admitted=set(self.admitted),
        )
