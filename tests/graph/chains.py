"""Job chains as graphs: checks that a chain is sound, and that two chains are equal except for their ids."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable

from spincycle_grpc.state import State
from spincycle_grpc.structs import from_struct
from spincycle_grpc.v1.job_pb2 import Job, JobChain


def children_of(chain: JobChain) -> dict[str, list[str]]:
    return {job_id: list(chain.adjacency_list[job_id].ids) if job_id in chain.adjacency_list else []
            for job_id in chain.jobs}  # fmt: skip


def parents_of(chain: JobChain) -> dict[str, list[str]]:
    parents: dict[str, list[str]] = {job_id: [] for job_id in chain.jobs}
    for job_id, job_ids in chain.adjacency_list.items():
        for child in job_ids.ids:
            parents[child].append(job_id)
    return parents


def named(chain: JobChain, name: str) -> list[Job]:
    """Returns the jobs of one name, in topological order."""
    return [chain.jobs[job_id] for job_id in topological_order(chain) if chain.jobs[job_id].name == name]


def one(chain: JobChain, name: str) -> Job:
    (job,) = named(chain, name)
    return job


def topological_order(chain: JobChain) -> list[str]:
    """Returns the job ids in topological order, without jobs that are in a cycle or depend on one."""
    children = children_of(chain)
    unseen = {job_id: len(parents) for job_id, parents in parents_of(chain).items()}
    order = sorted(job_id for job_id, count in unseen.items() if not count)
    for job_id in order:
        for child in children[job_id]:
            unseen[child] -= 1
            if not unseen[child]:
                order.append(child)
    return order


def assert_sound(chain: JobChain) -> None:
    """Asserts everything that holds for every chain, whatever its specs."""
    children, parents = children_of(chain), parents_of(chain)
    assert all(len(ids) == len(set(ids)) for ids in children.values()), "duplicate edge"
    assert [job_id for job_id, ids in parents.items() if not ids] == [_outermost(chain)]
    assert len([job_id for job_id, ids in children.items() if not ids]) == 1
    assert not [job_id for job_id, ids in chain.adjacency_list.items() if not ids.ids]
    assert len(topological_order(chain)) == len(chain.jobs), "the chain has a cycle"
    for job_id, job in chain.jobs.items():
        assert job.id == job_id
        assert State(job.state) is State.PENDING
        assert len(job_id) == 4
        start = chain.jobs[job.sequence_id]
        assert (start.name, start.type, start.sequence_id) == ("noop", "noop", start.id)
        assert job.parent_sequence_id == start.parent_sequence_id
        assert job.parent_sequence_id == "" or job.parent_sequence_id in chain.jobs
        if job_id != job.sequence_id:
            assert not job.sequence_retry
            assert not job.sequence_timeout
    _assert_sequences_are_whole(chain, children)


def _outermost(chain: JobChain) -> str:
    (outermost,) = (
        job.id for job in chain.jobs.values() if job.id == job.sequence_id and not job.parent_sequence_id
    )
    return outermost


def _assert_sequences_are_whole(chain: JobChain, children: dict[str, list[str]]) -> None:
    """Asserts that edges enter each sequence only at its first job, and leave it only from one job.

    For each edge it looks only at the sequences that the edge enters and leaves, so that chains of
    thousands of nested sequences take little time.
    """
    sequence_of = {job_id: job.sequence_id for job_id, job in chain.jobs.items()}
    around = {job.id: job.parent_sequence_id for job in chain.jobs.values() if job.id == job.sequence_id}
    depths = _depths(around)
    left_from: dict[str, set[str]] = {sequence_id: set() for sequence_id in around}
    for job_id, ids in children.items():
        for child in ids:
            left, entered = sequence_of[job_id], sequence_of[child]
            while left != entered:
                if depths[left] >= depths[entered]:
                    left_from[left].add(job_id)
                    left = around[left]
                else:
                    assert child == entered
                    entered = around[entered]
    assert all(len(jobs) == 1 for sequence_id, jobs in left_from.items() if around[sequence_id])


def _depths(around: dict[str, str]) -> dict[str, int]:
    """Returns how deep each sequence is nested; 0 stands for "", outside of all sequences."""
    depths = {"": 0}
    for start in around:
        path, sequence_id = [], start
        while sequence_id not in depths:
            path.append(sequence_id)
            sequence_id = around[sequence_id]
        for inner in reversed(path):
            depths[inner] = depths[around[inner]] + 1
    return depths


def same_graph(one_chain: JobChain, other: JobChain, *, with_parents: bool = True) -> bool:
    """Returns whether two chains are equal except for ids and the order of edges.

    Args:
        one_chain: A chain.
        other: Another chain.
        with_parents: Also compare the ids of parent sequences, which the original does not have.
    """
    if (one_chain.timeout, one_chain.state) != (other.timeout, other.state):
        return False
    ours, theirs = (_Graph(chain, with_parents) for chain in (one_chain, other))
    numbers: dict[Hashable, int] = {}
    for _ in range(1 + len(one_chain.jobs)):
        ours.refine(numbers)
        theirs.refine(numbers)
        if Counter(ours.colours.values()) != Counter(theirs.colours.values()):
            return False
        if ours.is_stable and theirs.is_stable:
            break
    return _match(ours, theirs, {}, topological_order(one_chain))


class _Graph:
    """A chain with coloured jobs: jobs that differ, or whose neighbours differ, get different colours."""

    def __init__(self, chain: JobChain, with_parents: bool) -> None:
        self.edges = {(job_id, child) for job_id, ids in children_of(chain).items() for child in ids}
        self.colours: dict[str, int] = dict.fromkeys(chain.jobs, 0)
        self.is_stable = False
        self._children = children_of(chain)
        self._parents = parents_of(chain)
        places = _places(chain)
        self._labels = {job.id: (_label(job), places.get(job.id)) for job in chain.jobs.values()}
        self.sequences = {
            job.id: (job.sequence_id, job.parent_sequence_id if with_parents else "")
            for job in chain.jobs.values()
        }

    def refine(self, numbers: dict[Hashable, int]) -> None:
        before = len(set(self.colours.values()))
        colours = self.colours

        def seen_from(job_id: str) -> Hashable:
            return (
                colours[job_id],
                self._labels[job_id],
                tuple(colours.get(sequence_id, -1) for sequence_id in self.sequences[job_id]),
                tuple(sorted(colours[parent] for parent in self._parents[job_id])),
                tuple(sorted(colours[child] for child in self._children[job_id])),
            )

        self.colours = {job_id: numbers.setdefault(seen_from(job_id), 1 + len(numbers)) for job_id in colours}
        self.is_stable = len(set(self.colours.values())) == before


def _places(chain: JobChain) -> dict[str, Hashable]:
    """Returns the places in sliding windows of the jobs before them and of the ends of elements."""
    places: dict[str, list[Hashable]] = {}
    for before, window in chain.windows.items():
        size = len(window.first_job_ids)
        places.setdefault(before, []).append((window.max, window.stop_after_failures, size))
        for end, ids in (("first", window.first_job_ids), ("last", window.last_job_ids)):
            for number, job_id in enumerate(ids):
                places.setdefault(job_id, []).append((end, number))
    return {job_id: tuple(sorted(map(repr, found))) for job_id, found in places.items()}


def _backoff(job: Job) -> Hashable:
    return tuple(
        backoff.SerializeToString(deterministic=True)
        for backoff in (job.retry_backoff, job.sequence_retry_backoff)
    )


def _label(job: Job) -> Hashable:
    """Returns all fields of a job except ids."""
    return (
        job.name,
        job.type,
        job.bytes,
        json.dumps(from_struct(job.args), sort_keys=True) if job.HasField("args") else None,
        job.HasField("data"),
        job.state,
        job.retry,
        job.retry_wait,
        job.timeout,
        job.sequence_retry,
        job.sequence_retry_wait,
        job.sequence_timeout,
        _backoff(job),
        job.id == job.sequence_id,
    )


def _match(ours: _Graph, theirs: _Graph, matched: dict[str, str], left: list[str]) -> bool:
    """Matches each job that is left with a job of the other graph so that edges and sequences agree."""
    if not left:
        return {(matched[job_id], matched[child]) for job_id, child in ours.edges} == theirs.edges
    job_id, taken = left[0], set(matched.values())
    for candidate, colour in theirs.colours.items():
        if colour == ours.colours[job_id] and candidate not in taken:
            now = {**matched, job_id: candidate}
            if _agree(ours, theirs, now, job_id) and _match(ours, theirs, now, left[1:]):
                return True
    return False


def _agree(ours: _Graph, theirs: _Graph, matched: dict[str, str], job_id: str) -> bool:
    expected = tuple(matched.get(sequence_id, "") for sequence_id in ours.sequences[job_id])
    return theirs.sequences[matched[job_id]] == expected and all(
        (matched[parent], matched[job_id]) in theirs.edges for parent, child in ours.edges if child == job_id
    )
