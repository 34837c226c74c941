"""A second implementation of the builder's rules: recursive, quadratic, with one function per rule.

It is slow, shares no code with the builder, and serves to check the builder.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Mapping
from typing import Any

from spincycle_grpc.jobs import JobFactory, JobId, UnknownJobTypeError
from spincycle_grpc.state import State
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1.job_pb2 import Job, JobChain, RetryBackoff
from spincycle_server.graph.path_labels import MAX_VALUE
from spincycle_server.specs.model import NodeSpec, SequenceSpec, Specs


class RefusedError(Exception):
    """The specs or args are invalid. `reason` is the reason of the builder's error."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


Args = dict[str, Any]
Ends = tuple[Job, Job]


class SlowBuilder:
    def __init__(self, specs: Specs, factory: JobFactory) -> None:
        self.specs = specs
        self.factory = factory
        self.jobs: list[Job] = []
        self.edges: list[tuple[Job, Job]] = []
        self.numbers = itertools.count()
        self.paths: list[tuple[str, ...]] = []
        """The paths of the jobs of nodes, whether or not the chain has labels."""
        self.around: list[str] = []
        self.element = ""
        self.windows: list[tuple[Job, NodeSpec, list[Ends]]] = []

    def build(self, request_type: str, given: Mapping[str, Any]) -> JobChain:
        spec = self.specs.sequences.get(request_type)
        if spec is None:
            raise RefusedError("UNKNOWN_REQUEST_TYPE")
        if not spec.request:
            raise RefusedError("NOT_A_REQUEST")
        if any(arg.name in given for arg in spec.static):
            raise RefusedError("STATIC_ARG_GIVEN")
        if any(arg.name not in given for arg in spec.required):
            raise RefusedError("REQUIRED_ARG_MISSING")
        self.sequence(spec, dict(given), None, None, [])
        chain = JobChain(state=State.PENDING.value, timeout=spec.timeout)
        for job in self.jobs:
            chain.jobs[job.id].CopyFrom(job)
        for before, after in self.edges:
            chain.adjacency_list[before.id].ids.append(after.id)
        for before, node, elements in self.windows:
            window = chain.windows[before.id]
            window.max, window.stop_after_failures = node.parallel or 0, node.stop_after_failures or 1
            window.first_job_ids.extend(first.id for first, _ in elements)
            window.last_job_ids.extend(last.id for _, last in elements)
        return chain

    def add(self, name: str, job_type: str, sequence: Job | None) -> Job:
        job = Job(id=f"{next(self.numbers):04d}", name=name, type=job_type, state=State.PENDING.value)
        if sequence is not None:
            job.sequence_id, job.parent_sequence_id = sequence.sequence_id, sequence.parent_sequence_id
        self.jobs.append(job)
        return job

    def edge(self, before: Job, after: Job) -> None:
        self.edges.append((before, after))

    def sequence(
        self, spec: SequenceSpec, args: Args, around: Job | None, node: NodeSpec | None, outer: list[str]
    ) -> Ends:
        """Rules 1, 2, 5, 9 and 10."""
        self.check_deps(spec)
        self.check_each(spec)
        if any(arg.name not in args for arg in spec.required):
            raise RefusedError("REQUIRED_ARG_MISSING")
        if spec.name in outer:
            raise RefusedError("SEQUENCE_CIRCLE")
        for arg in spec.optional + spec.static:
            args.setdefault(arg.name, arg.default)
        start = self.add("noop", "noop", None)
        start.sequence_id = start.id
        self.around.append(self.element or (node.name if node else spec.name))
        start.parent_sequence_id = around.sequence_id if around else ""
        if node is not None:
            start.sequence_retry, start.sequence_retry_wait = node.retry, wait_of(node)
            start.sequence_timeout = node.timeout
            self.add_backoff(start.sequence_retry_backoff, node)
        built: dict[str, Ends] = {}
        while len(built) < len(spec.nodes):
            for name, candidate in spec.nodes.items():
                if name not in built and self.can_be_built(candidate, args):
                    built[name] = self.node(candidate, args, start, [*outer, spec.name], spec)
                    break
            else:
                raise RefusedError("JOB_ARGS_MISSING")
        end = self.add("noop", "noop", start)
        self.around.pop()
        self.link(spec, built, start, end)
        return start, end

    def check_deps(self, spec: SequenceSpec) -> None:
        """Removes nodes without remaining deps until none is left."""
        gone: set[str] = set()
        while free := [n.name for n in spec.nodes.values() if n.name not in gone and set(n.deps) <= gone]:
            gone.add(free[0])
        if len(gone) < len(spec.nodes):
            raise RefusedError("IMPOSSIBLE_DEPS")

    def check_each(self, spec: SequenceSpec) -> None:
        """Refuses an `each` that is not list:element, or whose element has the name of another arg."""
        for node in spec.nodes.values():
            elements = [arg.expected for arg in node.args]
            for pair in node.each:
                if pair.count(":") != 1 or "" in pair.split(":") or pair.split(":")[1] in elements:
                    raise RefusedError("BAD_SPEC")
                elements.append(pair.split(":")[1])

    def can_be_built(self, node: NodeSpec, args: Args) -> bool:
        lists = [pair.split(":")[0] for pair in node.each]
        ifs = [node.if_arg] if node.category == "conditional" else []
        return all(name in args for name in [arg.given for arg in node.args] + lists + ifs)

    def link(self, spec: SequenceSpec, built: dict[str, Ends], start: Job, end: Job) -> None:
        """Rule 9."""
        for name, (first, last) in built.items():
            for dep in set(spec.nodes[name].deps):
                self.edge(built[dep][1], first)
            if not spec.nodes[name].deps:
                self.edge(start, first)
            if not any(name in other.deps for other in spec.nodes.values()):
                self.edge(last, end)
        if not built:
            self.edge(start, end)

    def node(self, node: NodeSpec, args: Args, sequence: Job, outer: list[str], spec: SequenceSpec) -> Ends:
        """Rules 3 and 7."""
        given = {arg.expected: args[arg.given] for arg in node.args}
        if node.category == "conditional":
            given[node.if_arg] = args[node.if_arg]
        if not node.each:
            return self.once(node, given, args, sequence, outer)
        pairs = [pair.split(":") for pair in node.each]
        lists = [args[list_name] for list_name, _ in pairs]
        if (
            not all(isinstance(values, list) for values in lists)
            or len({len(values) for values in lists}) > 1
        ):
            raise RefusedError("BAD_EACH")
        rows = [
            given | {element: row[i] for i, (_, element) in enumerate(pairs)}
            for row in zip(*lists, strict=True)
        ]
        labels = self.labels(node, rows, spec)
        if len(rows) == 1:
            return self.once(node, rows[0], args, sequence, outer, labels[0])
        ends = [self.add("noop", "noop", sequence)]
        if rows and node.window == "sliding":
            elements = [
                self.once(node, row, args, sequence, outer, label)
                for row, label in zip(rows, labels, strict=True)
            ]
            after = self.add("noop", "noop", sequence)
            for first, last in elements:
                self.edge(ends[0], first)
                self.edge(last, after)
            self.windows.append((ends[0], node, elements))
            return ends[0], after
        while rows:
            size = node.parallel or len(rows)
            group, rows = rows[:size], rows[size:]
            names, labels = labels[:size], labels[size:]
            fork, join = self.add("noop", "noop", sequence), self.add("noop", "noop", sequence)
            for row, label in zip(group, names, strict=True):
                first, last = self.once(node, row, args, sequence, outer, label)
                self.edge(fork, first)
                self.edge(last, join)
            self.edge(ends[-1], fork)
            ends.append(join)
        ends.append(self.add("noop", "noop", sequence))
        self.edge(ends[-2], ends[-1])
        return ends[0], ends[-1]

    def labels(self, node: NodeSpec, rows: list[Args], spec: SequenceSpec) -> list[str]:
        """Adds elements to the labels until no two are equal, but none that makes no difference."""
        elements = [pair.split(":")[1] for pair in node.each]
        others = [pair.split(":")[1] for other in spec.nodes.values() for pair in other.each]
        shared = any(others.count(element) > 1 for element in elements)
        shown: list[str] = []
        for element in elements:
            if not shown or len(self.texts(rows, [*shown, element])) > len(self.texts(rows, shown)):
                shown.append(element)
        labels = [
            " ".join(([node.name] if shared else []) + [f"{name} {self.text(row[name])}" for name in shown])
            for row in rows
        ]
        if len(set(labels)) < len(rows):
            return [f"{label} #{number}" for number, label in enumerate(labels, 1)]
        return labels

    def texts(self, rows: list[Args], elements: list[str]) -> set[str]:
        return {json.dumps([self.text(row[element]) for element in elements]) for row in rows}

    def text(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"

    def once(
        self, node: NodeSpec, given: Args, args: Args, sequence: Job, outer: list[str], label: str = ""
    ) -> Ends:
        """Rules 4 to 6, and 8."""
        self.element = label
        if node.category == "job":
            given = copy.deepcopy(given)
            job = self.job(node, given, sequence)
            ends = job, job
        elif node.category == "sequence":
            if node.type not in self.specs.sequences:
                raise RefusedError("UNKNOWN_SEQUENCE")
            ends = self.sequence(self.specs.sequences[node.type], given, sequence, node, outer)
        else:
            ends = self.conditional(node, given, sequence, outer)
        for node_set in node.sets:
            if node_set.arg not in given:
                raise RefusedError("ARG_NOT_SET")
            args[node_set.as_name] = copy.deepcopy(given[node_set.arg])
        return ends

    def job(self, node: NodeSpec, given: Args, sequence: Job) -> Job:
        job = self.add(node.name, node.type, sequence)
        self.paths.append((*self.around, *([self.element] if self.element else []), node.name))
        job.retry, job.retry_wait, job.timeout = node.retry, wait_of(node), node.timeout
        self.add_backoff(job.retry_backoff, node)
        if given:
            job.args.CopyFrom(to_struct(given))
        try:
            made = self.factory(JobId(node.type, node.name, job.id, ""))
        except UnknownJobTypeError as error:
            raise RefusedError("UNKNOWN_JOB_TYPE") from error
        made.create(given)
        job.bytes = made.serialize()
        return job

    def add_backoff(self, message: RetryBackoff, node: NodeSpec) -> None:
        if node.retry and node.backoff is not None:
            message.factor, message.jitter = float(node.backoff.factor or 1), node.backoff.jitter
            message.max = node.backoff.max or "24h"

    def conditional(self, node: NodeSpec, given: Args, sequence: Job, outer: list[str]) -> Ends:
        """Rule 6."""
        value = given[node.if_arg]
        if not isinstance(value, str) or (value not in node.eq and "default" not in node.eq):
            raise RefusedError("BAD_IF")
        name = node.eq[value] if value in node.eq else node.eq["default"]
        before = self.add("noop", "noop", sequence)
        if name in self.specs.sequences:
            first, last = self.sequence(self.specs.sequences[name], given, sequence, node, outer)
        elif name == "noop":
            empty = SequenceSpec("noop", False, (), (), (), (), {}, "", node.position)
            first, last = self.sequence(empty, given, sequence, node, outer)
        else:
            raise RefusedError("UNKNOWN_SEQUENCE")
        after = self.add("noop", "noop", sequence)
        self.edge(before, first)
        self.edge(last, after)
        return before, after


def wait_of(node: NodeSpec) -> str:
    if not node.retry:
        return ""
    return node.retry_wait or "0s"
