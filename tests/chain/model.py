"""A slow model of a running chain, written from the rules. It looks at the whole chain after each event."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from spincycle_grpc.duration import parse_duration
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import JobChain
from tests.chain.generated import ElementPlace, FinalPlace, Structure, WindowPlace

GOING_BACK = "going back"
WAITING = "waiting"


_Before: TypeAlias = tuple[dict[str, State], dict[str, int], dict[str, int], set[str]]
"""States, tries in the current tries of sequences, tries of sequences, and recorded sequences."""


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
    begun: set[FinalPlace] = field(default_factory=set)
    cut: set[FinalPlace] = field(default_factory=set)
    owed: set[FinalPlace] = field(default_factory=set)
    unrecorded: dict[str, _Before] = field(default_factory=dict)
    recorded: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    claims: dict[str, int] = field(default_factory=dict)
    has_final_failed: bool = False
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
        if job_id in self.sequence_tries:
            self.recorded.add(job_id)
            self.unrecorded = {
                one: before
                for one, before in self.unrecorded.items()
                if job_id not in self.structure.around[one]
            }
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
            for first in self.structure.finals_after(job_id):
                self.data[first].update(self.data[job_id])
        elif is_last or self.run_tries[job_id] > job.retry:
            self.states[job_id] = State.FAIL
            self.has_final_failed |= self.fails_request(job_id)
            if self.goes_on(job_id):
                self.fail_sequence(job.sequence_id)
        elif not self.goes_on(job_id):
            self.states[job_id] = State.STOPPED
        else:
            self.between.add(job_id)
            if not job.retry_wait:
                self.again(job_id)
        self.settle()

    def fail_sequence(self, sequence_id: str) -> None:
        """The innermost sequence with tries left is reset, unless a sequence around it is already."""
        for around in self.structure.around[sequence_id]:
            if self.is_kept(around) or not self.goes_on(around):
                break
            if self.sequence_tries[around] <= self.chain.jobs[around].sequence_retry:
                self.go_back(around)
                break

    def goes_on(self, job_id: str) -> bool:
        """Whether the chain runs, or ends and the job is in a `finally` part."""
        return self.mode == "running" or (self.mode == "stopping" and job_id in self.structure.final_of)

    def is_kept(self, sequence_id: str) -> bool:
        """Whether a sequence around the jobs of this one keeps them from starting."""
        around = self.structure.around[sequence_id]
        if (final := self.structure.final_of.get(sequence_id)) is not None:
            around = around[: around.index(final.first) + 1]
        return any(self.sequences.get(one) or self.is_cut(one) for one in around)

    def is_cut(self, sequence_id: str) -> bool:
        """Whether the `finally` part of a sequence has begun, and the sequence is not complete."""
        return self.structure.final_after.get(sequence_id) in self.cut

    def owes(self, sequence_id: str) -> bool:
        """Whether a `finally` part in a sequence must still run, or runs."""
        inside = (one for one in self.begun if sequence_id in self.structure.around[one.around])
        return any(not self.is_over(final) for final in inside)

    def body_begins(self, final: FinalPlace) -> bool:
        return self.body_has_begun(final) or self.states[final.body] is State.RUNNING

    def body_has_begun(self, final: FinalPlace) -> bool:
        has_ended = self.states[final.body] in (State.COMPLETE, State.FAIL)
        return has_ended or self.sequence_tries[final.body] > 1

    def is_over(self, final: FinalPlace) -> bool:
        if not self.body_has_begun(final) and self.states[final.body] is not State.RUNNING:
            return True
        if self.states[final.first] is State.PENDING:
            return False
        if any(self.states[one] is State.RUNNING for one in final.jobs) or final.jobs & self.sequences.keys():
            return False
        return not any(self.can_run(one) and self.may_begin(one) for one in final.jobs)

    def go_back(self, sequence_id: str) -> None:
        final = self.structure.final_of.get(sequence_id)
        for inner in list(self.sequences):
            is_same_part = self.structure.final_of.get(inner) == final
            if sequence_id in self.structure.around[inner] and is_same_part:
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
        if mode in ("pausing", "suspending") and self.mode in ("running", "stopping"):
            self.owed = {final for final in self.begun if not self.is_over(final)}
        self.mode = mode
        self.sequences = {one: what for one, what in self.sequences.items() if self.goes_on(one)}
        for job_id in [one for one in self.between if not self.goes_on(one)]:
            self.states[job_id] = State.STOPPED
            self.between.discard(job_id)
        self.settle()

    def stop(self, *, for_good: bool = False) -> None:
        """Stops the chain, but not the `finally` parts. A chain that is being suspended is stopped later."""
        if for_good:
            self.end("stopping for good")
        elif self.mode != "suspending" or not any(map(self.body_begins, self.owed)):
            was_pausing, self.mode = self.mode == "pausing", "stopping"
            if was_pausing:
                stopped = [one for one, state in self.states.items() if state is State.STOPPED]
                self.states |= {one: State.PENDING for one in stopped if self.goes_on(one)}
                self.admitted = {one for one in self.admitted if self.has_begun(one)}
                self.go_on("stopping")
            self.end("stopping")

    def pause(self, not_begun: Iterable[str]) -> None:
        """Running tries go on, except those that have not begun. They do not count."""
        self._take_back("pausing", not_begun)

    def suspend(self, not_begun: Iterable[str]) -> None:
        """Running tries are told to stop. Those that have not begun do not count."""
        self._take_back("suspending", not_begun)

    def _take_back(self, mode: str, not_begun: Iterable[str]) -> None:
        self.end(mode)
        for job_id in not_begun:
            self.states[job_id] = State.PENDING
            self.tries[job_id] -= 1
            self.run_tries[job_id] -= 1

    def crash(self, mode: str = "running") -> None:
        """Running tries count as not begun, and the chain continues, or ends."""
        for job_id in self.running():
            if job_id not in self.between:
                self.tries[job_id] -= 1
                self.run_tries[job_id] -= 1
            self.states[job_id] = State.STOPPED
        for states, run_tries, sequence_tries, recorded in reversed(self.unrecorded.values()):
            # Nothing tells that a new try of the sequence has begun. It begins again, unless others keep it.
            self.states |= states
            self.run_tries |= run_tries
            self.sequence_tries |= sequence_tries
            self.recorded |= recorded
        self.unrecorded = {}
        lost = [
            one
            for one, tries in self.sequence_tries.items()
            if tries == 1 and one not in self.recorded and self.states[one] is not State.COMPLETE
        ]
        self.sequence_tries |= dict.fromkeys(lost, 0)
        self.resume(mode)

    def resume(self, mode: str = "running") -> None:
        """Continues a suspended or lost chain. Parts of elements that an earlier request ran do not count."""
        self._make_pending()
        self.admitted = {
            one
            for window in self.structure.windows
            for one in window.elements
            if self.has_begun(one) and not self.is_held(one)
        }
        self.used, self.claims = set(), {}
        self.begun = set(filter(self.goes_on_with, self.structure.finals))
        self.cut = {
            final
            for final in self.begun
            if State.PENDING is not self.states[final.first]
            and State.COMPLETE is not self.states[final.body_last]
        }
        self.go_on(mode)

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

    def go_on(self, mode: str = "running") -> None:
        self.mode = mode
        self.between, self.sequences = set(), {}
        for job_id, state in self.states.items():
            if state is State.FAIL and self.goes_on(job_id):
                self.fail_sequence(self.chain.jobs[job_id].sequence_id)
        for final in self.structure.finals if mode == "running" else ():
            if self.is_cut(final.body):
                self.fail_sequence(final.around)
        self.settle()

    def settle(self) -> None:
        if self.mode in ("running", "stopping"):
            while self._settle_once():
                pass
        self.use_keys()

    def use_keys(self) -> None:
        """A sequence uses its keys while something runs or waits in it. A pause changes nothing."""
        for one in self.structure.keys:
            inside = self.structure.jobs_in[one]
            if self.mode in ("pausing", "suspending"):
                if all(self.states[job_id] is State.COMPLETE for job_id in inside):
                    self.used.discard(one)
                continue
            if self.is_busy(one):
                if one not in self.used:
                    self.claims[one] = self.claims.get(one, 0) + 1
                self.used.add(one)
            else:
                self.used.discard(one)

    def is_busy(self, sequence_id: str) -> bool:
        """Whether a job runs or will run in a sequence, or in a `finally` part that is owed in it."""
        inside = self.structure.jobs_in[sequence_id]
        if any(self.states[one] is State.RUNNING for one in inside) or self.sequences.keys() & set(inside):
            return True
        return self.mode != "stopping for good" and self.owes(sequence_id)

    def _settle_once(self) -> bool:
        """Goes on with what follows. Returns whether more may follow from that."""
        self.run_ready()
        while any(map(self.admit, self.structure.windows)):
            self.run_ready()
        back = [sequence_id for sequence_id in self.sequences if self.may_go_back(sequence_id)]
        for sequence_id in back:
            self.reset(sequence_id)
        if back:
            return True
        due = [final for final in self.structure.finals if self.is_due(final)]
        for final in due:
            self.run(final.first)
            if self.states[final.body_last] is not State.COMPLETE:
                self.cut.add(final)
                if self.mode == "running":
                    self.fail_sequence(final.around)
        return bool(due)

    def may_go_back(self, sequence_id: str) -> bool:
        inside = self.structure.jobs_in[sequence_id]
        if self.sequences[sequence_id] != GOING_BACK or not self.goes_on(sequence_id):
            return False
        return not self.owes(sequence_id) and not any(self.states[one] is State.RUNNING for one in inside)

    def reset(self, sequence_id: str) -> None:
        """Begins the next try of a sequence, perhaps with a wait."""
        inside = self.structure.jobs_in[sequence_id]
        sequences = [one for one in inside if one in self.sequence_tries]
        self.unrecorded[sequence_id] = (
            {one: self.states[one] for one in inside},
            {one: self.run_tries[one] for one in inside},
            {one: self.sequence_tries[one] for one in sequences},
            self.recorded.intersection(sequences),
        )
        ended = {one for one in self.begun if sequence_id in self.structure.around[one.around]}
        self.begun -= ended
        self.cut -= ended
        for job_id in inside:
            self.states[job_id] = State.PENDING
            self.run_tries[job_id] = 0
        self.admitted -= {
            element
            for window in self.structure.windows
            if sequence_id in self.structure.around[window.sequence]
            for element in window.elements
        }
        self.sequence_tries |= {one: 0 for one in sequences if one != sequence_id}
        self.recorded.difference_update(sequences)
        self.used.difference_update(one for one in sequences if one != sequence_id)
        self.sequence_tries[sequence_id] += 1
        if parse_duration(self.chain.jobs[sequence_id].sequence_retry_wait or "0"):
            self.sequences[sequence_id] = WAITING
        else:
            del self.sequences[sequence_id]

    def is_due(self, final: FinalPlace) -> bool:
        """Whether a `finally` part is to begin: nothing in the sequence before it runs or will run."""
        if final not in self.begun or not self.body_has_begun(final) or not self.goes_on(final.first):
            return False
        if self.states[final.first] is not State.PENDING:
            return False
        inside = self.structure.jobs_in[final.body]
        if any(self.states[one] is State.RUNNING for one in inside) or self.sequences.keys() & set(inside):
            return False
        return not self.owes(final.body)

    def run_ready(self) -> None:
        for job_id in self.structure.job_ids:
            if self.can_run(job_id) and self.may_begin(job_id):
                self.run(job_id)

    def run(self, job_id: str) -> None:
        self.states[job_id] = State.RUNNING
        if job_id in self.sequence_tries and not self.sequence_tries[job_id]:
            self.sequence_tries[job_id] = 1
        if job_id in self.structure.final_after:
            self.begun.add(self.structure.final_after[job_id])
        self.again(job_id)

    def can_run(self, job_id: str) -> bool:
        """Whether nothing but a window keeps a job from running."""
        if self.states[job_id] is not State.PENDING or not self.goes_on(job_id):
            return False
        is_ready = all(self.states[one] is State.COMPLETE for one in self.structure.parents[job_id])
        return is_ready and not self.is_kept(self.structure.sequence_of[job_id])

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
        outer = [one for one in self.structure.elements_of[element.first] if one is not element]
        is_frozen = self.is_kept(window.sequence) or not self.admitted.issuperset(outer)
        is_frozen = is_frozen or not self.goes_on(element.first)
        is_first_ready = all(
            self.states[one] is State.COMPLETE for one in self.structure.parents[element.first]
        )
        if is_frozen or not is_first_ready:
            return False
        self.begun |= {final for final in self.structure.finals if self.begins_with(element, final)}
        self.admitted.add(element)
        return True

    def begins_with(self, element: ElementPlace, final: FinalPlace) -> bool:
        """Whether an element of which an earlier request has run a part owes a `finally` part now."""
        return self.is_held(element) and final.first in element.jobs and self.goes_on_with(final, element)

    def goes_on_with(self, final: FinalPlace, admitted: ElementPlace | None = None) -> bool:
        """Whether a chain that continues owes a part: the sequence before it has begun, and is not held."""
        if not self.body_has_begun(final):
            return False
        around = set(self.structure.elements_of[final.first]) - self.admitted - {admitted}
        is_complete = all(self.states[one] is State.COMPLETE for one in final.jobs)
        return not is_complete and not any(map(self.is_held, around))

    def is_stuck(self, element: ElementPlace) -> bool:
        """Whether nothing in an element runs or will run."""
        if any(final.around in element.jobs and not self.is_over(final) for final in self.begun):
            return False
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
        if self.mode in ("stopping", "stopping for good"):
            if self.has_final_failed:
                return State.FAIL
            failed = [job_id for job_id, state in self.states.items() if state is State.FAIL]
            return State.STOPPED if all(map(self.would_run_again, failed)) else State.FAIL
        return State.FAIL

    def would_run_again(self, job_id: str) -> bool:
        """Whether a sequence around a failed job has tries left."""
        return any(map(self.has_tries_left, self.structure.around[self.structure.sequence_of[job_id]]))

    def has_tries_left(self, sequence_id: str) -> bool:
        return self.sequence_tries[sequence_id] <= self.chain.jobs[sequence_id].sequence_retry

    def fails_request(self, job_id: str) -> bool:
        """Whether the failure of a job makes the request FAIL although it is being stopped."""
        final = self.structure.final_of.get(job_id)
        if final is None or self.mode not in ("stopping", "stopping for good"):
            return False
        around = self.structure.around[self.structure.sequence_of[job_id]]
        return not any(map(self.has_tries_left, around[: around.index(final.first)]))

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
            begun=set(self.begun),
            cut=set(self.cut),
            owed=set(self.owed),
            unrecorded=dict(self.unrecorded),
            recorded=set(self.recorded),
            used=set(self.used),
            claims=dict(self.claims),
        )
