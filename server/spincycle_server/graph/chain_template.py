"""Chain templates: chains of which only the ids, and what jobs say of themselves, differ between requests.

The shape of a chain is fixed if no node of its specs has `each`, a condition or an approval, and no sequence
has limits. Such a chain is expanded once. For each request, its message and its JSON are made from texts, and
only the jobs are created one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import NamedTuple

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.v1.approval_pb2 import Approval
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.wire import encode
from spincycle_server.graph.chain_texts import LARGEST, PREFIXES, ChainTexts, special_ids
from spincycle_server.graph.chain_writer import ChainWriter, too_many_jobs
from spincycle_server.graph.job_creator import JobCreator
from spincycle_server.graph.plan import NodePlan, PlanError, Plans, SequencePlan
from spincycle_server.graph.scope import Scope
from spincycle_server.graph.sequence_expander import SequenceExpander
from spincycle_server.specs.model import SequenceSpec

MOST_JOBS = 100_000
"""How many jobs all templates may have. A job takes less than 1 KB."""

MOST_CONTENT = 256 * 1024
"""Bytes of args and data of jobs up to which the JSON of a chain is made from texts.

If there are more, the jobs take nearly all the time. `encode` writes them in small parts, without copies of
the whole JSON, and lets other threads run in between.
"""


class _Step(NamedTuple):
    """Something that is done for each request.

    Attributes:
        scope: The number of the scope, in the order in which they begin.
        node: The node whose job is created, or that calls the sequence which begins.
        job: The number of the job that is created; -1 if none is.
        begins: The plan of the sequence that begins; None if none does.
        outer: The number of the scope around that sequence; -1 if there is none.
    """

    scope: int
    node: NodePlan | None = None
    job: int = -1
    begins: SequencePlan | None = None
    outer: int = -1


class ChainTemplate:
    """The template of one chain.

    Args:
        writer: Has written the chain, with special ids.
        prefix: Their prefix.
        steps: What is done for each request.

    Attributes:
        jobs: How many jobs the chain has.
        tasks: How many of them do more than to connect other jobs.
        types: The types of the jobs.
        features: What the chain needs of a runner.

    Raises:
        ValueError: The chain has text that looks like one of its ids.
    """

    def __init__(self, writer: ChainWriter, prefix: str, steps: list[_Step]) -> None:
        self.jobs = len(writer.chain.jobs)
        self.tasks = writer.tasks
        self.types = frozenset(job.type for job in writer.chain.jobs.values())
        self.features = frozenset(writer.features)
        self._texts = ChainTexts(writer.chain, prefix)
        self._steps = steps

    def build(
        self, request_id: str, ids: Iterator[str], args: dict[str, object], creator: JobCreator
    ) -> tuple[JobChain, Callable[[], bytes]]:
        """Builds a chain.

        Args:
            request_id: The id of the request.
            ids: The source of job ids.
            args: The args that the request is given. Those that nodes set are added.
            creator: Creates the jobs.

        Returns:
            The chain, and a function that returns its JSON.

        Raises:
            SpinCycleError: See `JobCreator.create`; or there are too few ids (TOO_MANY_JOBS).
        """
        job_ids = [*islice(ids, self.jobs)]
        if len(job_ids) < self.jobs:
            raise too_many_jobs(len(job_ids))
        chain = self._texts.message(request_id, job_ids)
        scopes: list[Scope] = []
        filled: list[int] = []
        for number, node, job, begins, outer in self._steps:
            if begins is not None:
                scopes.append(_scope(begins, args, node, scopes[outer] if outer >= 0 else None))
            elif node is None:
                scopes[number].leave()
            else:
                scope = scopes[number]
                if creator.create(node, scope, scope.given_to(node), chain.jobs[job_ids[job]]):
                    filled.append(job)
        if creator.content > MOST_CONTENT:
            return chain, partial(encode, chain)
        return chain, partial(self._texts.json, chain, job_ids, filled)


def _scope(plan: SequencePlan, args: dict[str, object], node: NodePlan | None, outer: Scope | None) -> Scope:
    """Returns a scope as the expander makes it, without ids."""
    if outer is not None:
        args = dict(outer.args) if node is None else outer.given_to(node)  # A `finally` has no node.
    return Scope(plan, "", args, outer, node)


class _Recorder:
    """Makes the jobs of a template, and records the steps that are done for each request.

    Args:
        writer: Writes the jobs into the chain.
        numbers: The numbers of the jobs, by their ids.
    """

    def __init__(self, writer: ChainWriter, numbers: Mapping[str, int]) -> None:
        self.steps: list[_Step] = []
        self._writer = writer
        self._numbers = numbers
        self._scopes: dict[Scope, int] = {}

    def make(self, node: NodePlan, scope: Scope, args: dict[str, object]) -> str:
        """Makes a job without creating it. It is taken to set what the node sets, as otherwise it fails."""
        job_id = self._writer.job_id()
        self._writer.job_of(node, job_id, scope)
        self.steps.append(_Step(self._number(scope), node, self._numbers[job_id]))
        scope.take_sets(node, node.type, {arg: None for arg, _ in node.sets})
        return job_id

    def make_approval(self, node: NodePlan, what: Approval, scope: Scope, args: Mapping[str, object]) -> str:
        """Is not called, because a chain with approvals has no template."""
        raise NotImplementedError

    def leave(self, scope: Scope) -> None:
        """Ends a sequence."""
        if scope.node is not None and scope.node.sets:
            self.steps.append(_Step(self._number(scope)))
        scope.leave()

    def _number(self, scope: Scope) -> int:
        """Returns the number of a scope. It begins when it is first used, before which nothing is set."""
        number = self._scopes.get(scope)
        if number is None:
            outer = -1 if scope.outer is None else self._number(scope.outer)
            number = self._scopes[scope] = len(self._scopes)
            self.steps.append(_Step(number, scope.node, begins=scope.plan, outer=outer))
        return number


class Templates:
    """The templates of all requests whose chains have a fixed shape. Each is made on first use.

    Safe for concurrent use by several threads: at worst, two threads make the same template.

    Args:
        plans: The plans of the sequences.
        max_jobs: The maximum number of jobs in a chain.
    """

    def __init__(self, plans: Plans, max_jobs: int) -> None:
        self._plans = plans
        self._largest = min(LARGEST, max_jobs)
        self._left = MOST_JOBS
        self._needed: dict[str, frozenset[str] | None] = {}
        self._templates: dict[tuple[str, frozenset[str]], ChainTemplate | None] = {}

    def of(self, sequence: SequenceSpec, given: Mapping[str, object]) -> ChainTemplate | None:
        """Returns the template of a request; None if it has none.

        Args:
            sequence: The sequence of the request.
            given: The args that the request is given.
        """
        name = sequence.name
        if name not in self._needed:
            self._needed[name] = self._needed_args(name)
        needed = self._needed[name]
        if needed is None:
            return None
        key = (name, needed.intersection(given))
        if key not in self._templates:
            if self._left <= 0:
                return None
            template = self._templates[key] = self._make(sequence, key[1])
            self._left -= 1 if template is None else template.jobs
        return self._templates[key]

    def _needed_args(self, name: str) -> frozenset[str] | None:
        """Returns the args whose absence changes the shape of a chain; None if other things do.

        An arg with a default is never absent.
        """
        try:
            if not self._is_fixed(name):
                return None
            plan = self._plans.get(name)
        except (PlanError, KeyError):  # Building the chain says what is wrong.
            return None
        needed = {*plan.needed_by, *(plan.final.needed_by if plan.final else ())}
        return frozenset(needed.difference(arg for arg, _ in plan.defaults))

    def _is_fixed(self, name: str) -> bool:
        """Whether no values of args decide about the chain of a sequence."""
        queue = [name]
        known = {name}
        for called in queue:  # The loop appends to the queue.
            plan = self._plans.get(called)
            if plan.limits:
                return False
            for node in (*plan.nodes, *(plan.final.nodes if plan.final else ())):
                if node.each or node.category == "conditional" or node.approval is not None:
                    return False
                if node.category == "sequence" and node.type not in known:
                    known.add(node.type)
                    queue.append(node.type)
        return True

    def _make(self, sequence: SequenceSpec, given: frozenset[str]) -> ChainTemplate | None:
        for prefix in PREFIXES:
            ids = special_ids(prefix)
            writer = ChainWriter("", sequence.timeout, iter(ids), self._largest)
            recorder = _Recorder(writer, {job_id: number for number, job_id in enumerate(ids)})
            try:
                SequenceExpander(self._plans, writer, recorder).run(sequence.name, dict.fromkeys(given))
                return ChainTemplate(writer, prefix, recorder.steps)
            except SpinCycleError:  # It is too large, or building the chain says what is wrong.
                return None
            except ValueError:
                continue
        return None
