"""Random job chains with nested sequences and retries, and their structure as plain Python values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spincycle_grpc.state import State
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.job_pb2 import Job, JobChain
from spincycle_grpc.v1.runner_reports_pb2 import TryReport
from tests.interleavings import share_of

SEEDS = st.integers(min_value=0, max_value=2**48)
_SEEDS_PER_EXAMPLE = 10


def for_seeds(count: int) -> Callable[[Callable[[int], None]], Callable[[], None]]:
    """Runs a test with random seeds: the share of `count` that `interleavings` says.

    Ten seeds follow from each that Hypothesis chooses, because its own work would take a fifth of the
    time. The exception of a failed test names the seed.
    """

    def decorate(test: Callable[[int], None]) -> Callable[[], None]:
        def with_several(chosen: int) -> None:
            others = Random(chosen)
            for seed in (chosen, *(others.getrandbits(48) for _ in range(_SEEDS_PER_EXAMPLE - 1))):
                try:
                    test(seed)
                except BaseException as error:
                    error.add_note(f"seed {seed}")
                    raise

        with_several.__name__ = test.__name__
        with_several.__doc__ = test.__doc__
        with_several.__module__ = test.__module__
        many = settings(
            max_examples=share_of(count / _SEEDS_PER_EXAMPLE),
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        return many(given(SEEDS)(with_several))

    return decorate


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


@dataclass(frozen=True)
class ElementPlace:
    """One element of a window.

    Attributes:
        first: Its first job.
        last: Its last job.
        jobs: Its jobs, at any depth.
        sequences: Its sequences, at any depth.
        is_sequence: It is a sequence, and its first job is the first one of that.
    """

    first: str
    last: str
    jobs: frozenset[str]
    sequences: frozenset[str]
    is_sequence: bool


@dataclass(frozen=True)
class FinalPlace:
    """A `finally` part.

    Attributes:
        first: Its first job, whose id is its id.
        jobs: Its jobs, at any depth.
        body: The sequence that it follows.
        body_last: The last job of that sequence.
        around: The sequence around both.
    """

    first: str
    jobs: frozenset[str]
    body: str
    body_last: str
    around: str


@dataclass(frozen=True)
class WindowPlace:
    """A window: its sequence, its limits, and its elements in the order in which they begin."""

    sequence: str
    most: int
    stop_after: int
    elements: tuple[ElementPlace, ...]


class Structure:
    """The parts of a chain that never change, read from the message once.

    Attributes:
        job_ids: The ids of all jobs.
        parents: Maps each job to the jobs that it directly depends on.
        children: Maps each job to the jobs that directly depend on it.
        sequence_of: Maps each job to its sequence.
        around: Maps each sequence to itself and the sequences around it, the innermost first.
        jobs_in: Maps each sequence to its jobs at any depth.
        noops: The jobs named noop.
        approvals: The jobs that wait for an approval. Nothing but a stop and a crash keeps their try.
        windows: The sliding windows, the innermost first.
        elements_of: Maps each job to the elements around it.
        finals: The `finally` parts, the innermost first.
        final_of: Maps each job of such a part to the part.
        final_after: Maps each sequence that such a part follows to the part.
        keys: The keys of each sequence that no sequence around it and not the request holds, if it has some.
        keyed_around: Maps each job to the sequences with such keys around it, the innermost first.
    """

    def __init__(self, chain: JobChain) -> None:
        self.job_ids = list(chain.jobs)
        self.parents: dict[str, list[str]] = {job_id: [] for job_id in self.job_ids}
        self.children: dict[str, list[str]] = {job_id: [] for job_id in self.job_ids}
        for job_id, ids in chain.adjacency_list.items():
            self.children[job_id] = list(ids.ids)
            for child in ids.ids:
                self.parents[child].append(job_id)
        self.sequence_of = {job_id: job.sequence_id for job_id, job in chain.jobs.items()}
        self.around = {
            job_id: _around(chain, job_id) for job_id, its in self.sequence_of.items() if its == job_id
        }
        self.jobs_in = {
            sequence_id: [one for one in self.job_ids if sequence_id in self.around[self.sequence_of[one]]]
            for sequence_id in self.around
        }
        self.approvals = {job_id for job_id, job in chain.jobs.items() if job.HasField("approval")}
        self.noops = {job_id for job_id, job in chain.jobs.items() if job.name == "noop"}
        windows = [self._window(chain, key) for key in chain.windows]
        self.windows = sorted(windows, key=lambda window: -len(self.around[window.sequence]))
        self.elements_of: dict[str, list[ElementPlace]] = {job_id: [] for job_id in self.job_ids}
        for window in self.windows:
            for element in window.elements:
                for job_id in element.jobs:
                    self.elements_of[job_id].append(element)

        finals = [self._final(job_id) for job_id in self.around if self._begins_final(chain, job_id)]
        self.finals = sorted(finals, key=lambda final: -len(self.around[final.first]))
        self.final_of = {job_id: final for final in self.finals for job_id in final.jobs}
        self.final_after = {final.body: final for final in self.finals}
        self.keys = {one: keys for one in self.around if (keys := self._keys(chain, one))}
        self.keyed_around = {
            job_id: [one for one in self.around[its] if one in self.keys]
            for job_id, its in self.sequence_of.items()
        }

    def _keys(self, chain: JobChain, sequence_id: str) -> set[str]:
        keys = {limit.key for limit in chain.jobs[sequence_id].sequence_limits}
        for outer in self.around[sequence_id][1:]:
            keys -= {limit.key for limit in chain.jobs[outer].sequence_limits}
        return keys - {limit.key for limit in chain.limits}

    def finals_after(self, job_id: str) -> list[str]:
        """Returns the first jobs of the `finally` parts that get the data of a job, beside its children."""
        around = self.around[self.sequence_of[job_id]]
        return [self.final_after[one].first for one in around if one in self.final_after]

    def _begins_final(self, chain: JobChain, job_id: str) -> bool:
        parent = chain.jobs[job_id].parent_sequence_id
        return chain.jobs[job_id].is_finally and not chain.jobs[parent].is_finally

    def _final(self, first: str) -> FinalPlace:
        (body_last,) = self.parents[first]
        body, around = self.sequence_of[body_last], self.around[first][1]
        return FinalPlace(first, frozenset(self.jobs_in[first]), body, body_last, around)

    def _window(self, chain: JobChain, key: str) -> WindowPlace:
        message = chain.windows[key]
        spans = zip(message.first_job_ids, message.last_job_ids, strict=True)
        elements = tuple(self._element(first, last) for first, last in spans)
        return WindowPlace(self.sequence_of[key], message.max, message.stop_after_failures, elements)

    def _element(self, first: str, last: str) -> ElementPlace:
        """Returns an element: all jobs that are after its first one and before its last one."""
        jobs, stack = {first}, [first]
        while stack:
            one = stack.pop()
            for child in self.children[one] if one != last else ():
                if child not in jobs:
                    jobs.add(child)
                    stack.append(child)
        sequences = frozenset(jobs & self.around.keys())
        return ElementPlace(first, last, frozenset(jobs), sequences, first in self.around)


def _around(chain: JobChain, sequence_id: str) -> list[str]:
    found = []
    while sequence_id:
        found.append(sequence_id)
        sequence_id = chain.jobs[sequence_id].parent_sequence_id
    return found


@dataclass
class ChainMaker:
    """Makes one random chain. Job ids are consecutive numbers, so that failures are easy to read.

    Attributes:
        random: The source of chance.
        most_nodes: The maximum number of nodes of a sequence.
        deepest: How deep sequences nest.
        limits: Some of the windows end after a number of failures.
        finals: The probability that a sequence has a `finally` part.
        keyed: The probability that a sequence has keys.
    """

    random: Random
    most_nodes: int = 4
    deepest: int = 3
    limits: bool = True
    finals: float = 0.15
    keyed: float = 0.2
    _is_in_final: bool = False
    chain: JobChain = field(
        default_factory=lambda: JobChain(request_id="request", state=state_pb2.STATE_PENDING)
    )

    def make(self) -> JobChain:
        if self.random.random() < 0.1:
            self.chain.limits.add(key="a", max=1)
        self._sequence("", self.deepest, retry=0)
        return self.chain

    def _add_keys(self, sequence_id: str) -> None:
        if self.random.random() < self.keyed:
            for key in self.random.sample("abc", self.random.choice([1, 1, 2])):
                self.chain.jobs[sequence_id].sequence_limits.add(key=key, max=self.random.choice([1, 1, 2]))

    def _with_final(self, parent_id: str, depth: int, *, retry: int) -> tuple[str, str]:
        """Adds a sequence around a sequence and its `finally` part."""
        around = self._job("noop", "", parent_id).id
        self._add_keys(around)
        first, body_last = self._plain_sequence(around, depth, retry=retry)
        self._is_in_final = True
        final_first, final_last = self._plain_sequence(around, min(depth, 1), retry=0)
        self._is_in_final = False
        last = self._job("noop", around, parent_id).id
        for before, after in [
            (around, first),
            (body_last, final_first),
            (final_last, last),
            (body_last, last),
        ]:
            self._edge(before, after)
        return around, last

    def _job(self, name: str, sequence_id: str, parent_id: str, *, retry: int = 0) -> Job:
        job_id = f"{len(self.chain.jobs):04d}"
        job = self.chain.jobs[job_id]
        job.id, job.name, job.type = job_id, name, "noop" if name == "noop" else "work"
        job.state = state_pb2.STATE_PENDING
        job.sequence_id, job.parent_sequence_id = sequence_id or job_id, parent_id
        job.is_finally = self._is_in_final
        if retry:
            job.retry = retry
            job.retry_wait = self.random.choice(["", "1s"])
        return job

    def _sequence(self, parent_id: str, depth: int, *, retry: int) -> tuple[str, str]:
        """Adds a sequence, perhaps with a `finally` part; returns the ids of its first and its last job."""
        if not self._is_in_final and self.random.random() < self.finals:
            return self._with_final(parent_id, depth, retry=retry)
        return self._plain_sequence(parent_id, depth, retry=retry)

    def _plain_sequence(self, parent_id: str, depth: int, *, retry: int) -> tuple[str, str]:
        first = self._job("noop", "", parent_id)
        self._add_keys(first.id)
        if retry:
            first.sequence_retry = retry
            first.sequence_retry_wait = self.random.choice(["", "1s"])
        nodes: list[tuple[str, str]] = []
        leaves: set[str] = set()
        for _ in range(self._node_count(is_outermost=not parent_id)):
            before = [last for _, last in nodes if self.random.random() < 0.4]
            if depth and self.random.random() < 0.12:
                node = self._window(first.id, parent_id, depth)
            else:
                node = self._node(first.id, parent_id, depth)
            for job_id in before or [first.id]:
                self._edge(job_id, node[0])
                leaves.discard(job_id)
            leaves.add(node[1])
            nodes.append(node)
        last = self._job("noop", first.id, parent_id)
        for job_id in sorted(leaves) or [first.id]:
            self._edge(job_id, last.id)
        return first.id, last.id

    def _node(self, sequence_id: str, parent_id: str, depth: int) -> tuple[str, str]:
        """Adds a job or a sequence; returns the ids of its first and its last job."""
        retry = self.random.choice([0, 0, 1, 2])
        if depth and self.random.random() < 0.35:
            return self._sequence(sequence_id, depth - 1, retry=retry)
        if not self._is_in_final and self.random.random() < 0.2:
            job = self._job("approve", sequence_id, parent_id)
            job.type = "approval"
            job.approval.timeout = "1h"
        else:
            job = self._job("job", sequence_id, parent_id, retry=retry)
        return job.id, job.id

    def _window(self, sequence_id: str, parent_id: str, depth: int) -> tuple[str, str]:
        """Adds elements in a sliding window between two jobs; returns the ids of these."""
        before = self._job("noop", sequence_id, parent_id).id
        window = self.chain.windows[before]
        window.max = self.random.randint(1, 3)
        if self.limits:
            window.stop_after_failures = self.random.choice([0, 1, 1, 2])
        for _ in range(self.random.randint(2, 5)):
            first, last = self._element(sequence_id, parent_id, depth)
            window.first_job_ids.append(first)
            window.last_job_ids.append(last)
            self._edge(before, first)
        after = self._job("noop", sequence_id, parent_id).id
        for last in window.last_job_ids:
            self._edge(last, after)
        return before, after

    def _element(self, sequence_id: str, parent_id: str, depth: int) -> tuple[str, str]:
        """Adds a job, a sequence, or a sequence between two jobs, as a conditional has them."""
        if self.random.random() < 0.7:
            return self._node(sequence_id, parent_id, depth)
        before = self._job("noop", sequence_id, parent_id).id
        first, last = self._sequence(sequence_id, depth - 1, retry=self.random.choice([0, 1]))
        after = self._job("noop", sequence_id, parent_id).id
        self._edge(before, first)
        self._edge(last, after)
        return before, after

    def _node_count(self, *, is_outermost: bool) -> int:
        """Returns how many nodes a sequence has. Only one outermost sequence in 20 has fewer than two.

        Requests of no node or one node are common, but large chains find more errors.
        """
        if not is_outermost:
            return self.random.randint(0, self.most_nodes)
        if self.random.random() < 0.05:
            return self.random.randint(0, 1)
        return self.random.randint(2, self.most_nodes)

    def _edge(self, before: str, after: str) -> None:
        self.chain.adjacency_list[before].ids.append(after)
