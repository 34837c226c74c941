"""The order in which the jobs of a chain are shown: nested by sequence, each job after its parents."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from spincycle_grpc.v1.job_pb2 import Job, JobChain

_ROOT = ""


class Kind(Enum):
    """The kind of a step in a walk over a chain."""

    BEGIN_SEQUENCE = 1
    JOB = 2
    END_SEQUENCE = 3


class Step(NamedTuple):
    """One step of a walk over a chain.

    Attributes:
        kind: The kind of the step.
        job: The job. For a sequence, its first job.
        depth: The number of sequences around the job.
        is_last: Whether it is the last item in the sequence around it.
    """

    kind: Kind
    job: Job
    depth: int
    is_last: bool


class Layout:
    """A chain as a tree of sequences.

    The first job of a sequence represents the sequence, and is not an item in it. Chains of the original do
    not say which sequence contains which, so their sequences are shown side by side.

    Args:
        chain: The chain. It must not change while the layout is in use.

    Attributes:
        parents: For each job id, the ids of the jobs directly before it.
    """

    def __init__(self, chain: JobChain) -> None:
        # Each job is read often, and a dict is faster than a map of messages.
        self._jobs = dict(chain.jobs.items())
        self._children = {job_id: list(job_ids.ids) for job_id, job_ids in chain.adjacency_list.items()}
        self.parents: dict[str, list[str]] = {job_id: [] for job_id in self._jobs}
        for job_id, children in sorted(self._children.items()):
            for child in children:
                self.parents[child].append(job_id)
        self._inside: dict[str, list[str]] = {_ROOT: []}
        for job_id in self._in_order():
            self._put(job_id)

    def _in_order(self) -> list[str]:
        """Returns the job ids in topological order, one branch after the other."""
        unseen_parents = {job_id: len(parents) for job_id, parents in self.parents.items()}
        stack = sorted((job_id for job_id, count in unseen_parents.items() if not count), reverse=True)
        order = []
        while stack:
            job_id = stack.pop()
            order.append(job_id)
            for child in reversed(self._children.get(job_id, ())):
                unseen_parents[child] -= 1
                if not unseen_parents[child]:
                    stack.append(child)
        return order

    def _put(self, job_id: str) -> None:
        """Adds a job to its sequence. The first job of a sequence adds the sequence to the one around it."""
        if job_id in self._inside:
            return
        item = job_id
        around = self._jobs[job_id].sequence_id
        if around == job_id:
            around = self._jobs[job_id].parent_sequence_id
            self._inside[job_id] = []
        while around not in self._inside:
            if around not in self._jobs:
                around = _ROOT
                break
            self._inside[around] = [item]
            item = around
            around = self._jobs[around].parent_sequence_id
        self._inside[around].append(item)

    def walk(self) -> Iterator[Step]:
        """Yields the jobs and the ends of sequences in display order."""
        stack = [iter(self._steps(_ROOT))]
        opened: list[Step] = []
        while stack:
            item = next(stack[-1], None)
            if item is None:
                stack.pop()
                if opened:
                    yield opened.pop()._replace(kind=Kind.END_SEQUENCE)
                continue
            job_id, is_last = item
            step = Step(Kind.JOB, self._jobs[job_id], len(opened), is_last)
            if job_id in self._inside:
                step = step._replace(kind=Kind.BEGIN_SEQUENCE)
                opened.append(step)
                stack.append(iter(self._steps(job_id)))
            yield step

    def _steps(self, sequence_id: str) -> list[tuple[str, bool]]:
        items = self._inside[sequence_id]
        return [(item, number == len(items)) for number, item in enumerate(items, 1)]
