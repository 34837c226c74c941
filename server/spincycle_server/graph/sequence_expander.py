"""Expands sequences into jobs, the noops around them, and the edges between them.

The expander is written as generators that yield the generators of inner sequences instead of calling
them. A loop with its own stack runs them, so specs may nest more deeply than Python calls.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Protocol

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.job_paths import MAX_LABEL, shortened
from spincycle_grpc.v1.approval_pb2 import Approval
from spincycle_grpc.v1.job_pb2 import EachWindow, Job
from spincycle_server.capabilities import FINALLY, RETRY_BACKOFF, SEQUENCE_LIMITS, SLIDING_WINDOW
from spincycle_server.graph.chain_writer import ChainWriter
from spincycle_server.graph.limit_keys import limits_of
from spincycle_server.graph.path_labels import element_labels
from spincycle_server.graph.plan import NodePlan, PlanError, Plans, SequencePlan
from spincycle_server.graph.ready_nodes import ReadyNodes
from spincycle_server.graph.scope import Scope
from spincycle_server.graph.spec_path import SpecPath
from spincycle_server.graph.values import kind_name
from spincycle_server.specs.final_part import FINAL_LABEL

_Span = tuple[str, str]
"""The ids of the first and the last job of a built node or sequence."""

_Element = tuple[dict[str, object], str]
"""The args and the label of one element of `each`."""

_Task = Generator["_Task", _Span, _Span]
"""Builds a node or sequence: yields the tasks of inner ones, receives their spans, returns its own span."""


class Maker(Protocol):
    """Makes the jobs of nodes, see `JobMaker`."""

    def make(self, node: NodePlan, scope: Scope, args: dict[str, object]) -> str:
        """Makes a job, and returns its id."""

    def make_approval(self, node: NodePlan, what: Approval, scope: Scope, args: Mapping[str, object]) -> str:
        """Makes an approval, and returns the id of its job."""

    def leave(self, scope: Scope) -> None:
        """Ends a sequence."""


class SequenceExpander:
    """Expands the sequences of one chain.

    Args:
        plans: The plans of the sequences.
        writer: Writes jobs and edges into the chain.
        maker: Makes the jobs of job nodes and approvals.
    """

    def __init__(self, plans: Plans, writer: ChainWriter, maker: Maker) -> None:
        self._plans = plans
        self._writer = writer
        self._maker = maker
        self._open_sequences: set[str] = set()
        self._has_labels = False

    def run(self, sequence_name: str, args: dict[str, object]) -> None:
        """Expands the request's sequence and all sequences in it.

        Raises:
            InvalidArgumentError: The args do not fit the specs.
            InternalError: The specs are invalid, or a job cannot be created.
            CallCancelledError: The build was cancelled.
        """
        task = self._sequence(Scope(self._plan(sequence_name), self._writer.job_id(), args))
        around: list[_Task] = []
        span: _Span | None = None
        while True:
            try:
                inner = next(task) if span is None else task.send(span)
            except StopIteration as done:
                if not around:
                    return
                span = done.value
                task = around.pop()
            else:
                around.append(task)
                task = inner
                span = None

    def _sequence(self, scope: Scope) -> _Task:
        """Builds a sequence, with its `finally` if it has one."""
        if scope.plan.final is None:
            return (yield from self._body(scope))
        return (yield from self._with_finally(scope, scope.plan.final))

    def _with_finally(self, scope: Scope, final: SequencePlan) -> _Task:
        """Builds a sequence and its `finally`, one after the other, in a sequence around both."""
        writer, edge = self._writer, self._writer.edge
        if writer.is_in_finally:
            raise scope.path.broken_spec("a 'finally' calls a sequence with a 'finally'", "BAD_SPEC")
        around, parent = scope.sequence_id, scope.parent_sequence_id
        writer.features.add(FINALLY)
        self._add_limits(writer.noop(around, around, parent), scope)
        scope.enter(writer.job_id())
        first, last = yield from self._body(scope)
        writer.is_in_finally = True
        inner = Scope(final, writer.job_id(), dict(scope.args), scope)
        inner.parent_sequence_id = around
        final_first, final_last = yield from self._body(inner)
        writer.is_in_finally = False
        end = writer.job_id()
        writer.noop(end, around, parent)
        edge(around, first)
        edge(last, final_first)
        edge(final_last, end)
        edge(last, end)  # The sequence around goes on only if this one is complete.
        return around, end

    def _body(self, scope: Scope) -> _Task:
        """Builds a sequence between two noops, and copies the args that it sets to the outer scope."""
        plan = scope.plan
        if plan.name in self._open_sequences:
            raise scope.path.broken_spec(f"sequence '{plan.name}' calls itself", "SEQUENCE_CIRCLE")
        self._open_sequences.add(plan.name)
        self._start_noop(scope)
        built: dict[int, _Span] = {}
        ready = scope.ready_nodes()
        for node in ready:
            if node.each:
                built[node.index] = yield self._each(node, scope)
            else:
                made = self._once(node, scope, scope.given_to(node))
                built[node.index] = made if isinstance(made, tuple) else (yield made)
        if len(built) < len(plan.nodes):
            raise _args_missing(scope, ready)
        end = self._noop(scope)
        self._link(scope, built, end)
        self._maker.leave(scope)
        self._open_sequences.remove(plan.name)
        return scope.sequence_id, end

    def _start_noop(self, scope: Scope) -> None:
        noop = self._writer.noop(scope.sequence_id, scope.sequence_id, scope.parent_sequence_id)
        node = scope.node
        if node is None and scope.outer is not None:
            self._label(scope, scope.sequence_id, FINAL_LABEL)
            noop.sequence_timeout = scope.plan.timeout
            return
        if scope.around_id:
            self._writer.label(scope.sequence_id, "")  # The sequence around both has the label.
        else:
            self._add_limits(noop, scope)
        if node is None:
            self._writer.chain.limits.extend(limits_of(scope))
            return
        label_id = scope.around_id or scope.sequence_id
        self._label(scope, label_id, scope.label or shortened(node.name, MAX_LABEL))
        if node.retry:
            noop.sequence_retry = node.retry
            noop.sequence_retry_wait = node.retry_wait
            if node.backoff is not None:
                noop.sequence_retry_backoff.CopyFrom(node.backoff)
                self._writer.features.add(RETRY_BACKOFF)
        if node.timeout:
            noop.sequence_timeout = node.timeout

    def _add_limits(self, noop: Job, scope: Scope) -> None:
        """Adds the limits of a sequence that a node calls to its first job."""
        if scope.plan.limits and scope.node is not None:
            noop.sequence_limits.extend(limits_of(scope))
            self._writer.features.add(SEQUENCE_LIMITS)

    def _label(self, scope: Scope, job_id: str, label: str) -> None:
        """Labels a sequence or a job. The outermost sequence has a label if anything else has one."""
        if not self._has_labels:
            self._has_labels = True
            while scope.outer is not None:
                scope = scope.outer
            self._writer.label(scope.around_id or scope.sequence_id, shortened(scope.plan.name, MAX_LABEL))
        self._writer.label(job_id, label)

    def _noop(self, scope: Scope) -> str:
        job_id = self._writer.job_id()
        self._writer.noop(job_id, scope.sequence_id, scope.parent_sequence_id)
        return job_id

    def _link(self, scope: Scope, built: dict[int, _Span], end: str) -> None:
        edge = self._writer.edge
        nodes = scope.plan.nodes
        for index, (first, _) in built.items():
            for dep in nodes[index].deps:
                edge(built[dep][1], first)
            if not nodes[index].deps:
                edge(scope.sequence_id, first)
        for index, (_, last) in built.items():
            if nodes[index].is_last:
                edge(last, end)
        if not nodes:
            edge(scope.sequence_id, end)

    def _once(self, node: NodePlan, scope: Scope, args: dict[str, object], label: str = "") -> _Span | _Task:
        """Builds a job node and returns its span, or returns the task that builds another node.

        The label is that of an element of `each`; "" if the node has none.
        """
        if node.category == "job":
            job_id = self._maker.make(node, scope, args)
            if label:
                self._label(scope, job_id, label)
            return job_id, job_id
        if node.approval is not None:
            job_id = self._maker.make_approval(node, node.approval, scope, args)
            return job_id, job_id
        if node.category == "sequence":
            missing = f"sequence '{node.type}' does not exist"
            return self._sequence(self._inner(node.type, node, scope, args, missing=missing, label=label))
        return self._conditional(node, scope, args, label)

    def _inner(
        self, name: str, node: NodePlan, scope: Scope, args: dict[str, object], *, missing: str, label: str
    ) -> Scope:
        if name not in self._plans:
            raise scope.path.broken_spec(missing, "UNKNOWN_SEQUENCE", node.name)
        plan = self._plan(name, scope.path, node.name)
        for arg in plan.required:
            if arg not in args:
                raise scope.path.broken_spec(
                    f"required arg '{arg}' not set", "REQUIRED_ARG_MISSING", node.name
                )
        return Scope(plan, self._writer.job_id(), args, scope, node, label=label)

    def _plan(self, name: str, outer: SpecPath | None = None, node: str = "") -> SequencePlan:
        try:
            return self._plans.get(name)
        except PlanError as error:
            raise SpecPath(name, outer, node).broken_spec(error.message, error.reason, error.node) from None

    def _conditional(self, node: NodePlan, scope: Scope, args: dict[str, object], label: str) -> _Task:
        """Builds the sequence that the value of the `if` arg selects, between two more noops."""
        value = args[node.if_arg]
        if not isinstance(value, str):
            raise scope.path.bad_arg(f"'if' arg '{node.if_arg}' is not a string", "BAD_IF", node.name)
        name = node.eq.get(value, node.eq.get("default"))
        if name is None:
            raise scope.path.bad_arg(
                f"'if: {node.if_arg}' value '{value}' does not match any options: {', '.join(node.eq)}",
                "BAD_IF",
                node.name,
            )
        missing = f"conditional sequence '{name}' for 'if: {node.if_arg}' value '{value}' does not exist"
        before = self._noop(scope)
        first, last = yield self._sequence(self._inner(name, node, scope, args, missing=missing, label=label))
        after = self._noop(scope)
        self._writer.edge(before, first)
        self._writer.edge(last, after)
        return before, after

    def _each(self, node: NodePlan, scope: Scope) -> _Task:
        """Builds a node once per row of its lists, in a sliding window or in batches of `parallel`."""
        names = [pair.element for pair in node.each]
        rows = _rows(node, scope)
        labels = element_labels(node, rows)
        given = scope.given_to(node)
        elements = [
            (given | dict(zip(names, row, strict=True)), label)
            for row, label in zip(rows, labels, strict=True)
        ]
        if len(elements) == 1:
            made = self._once(node, scope, *elements[0])
            return made if isinstance(made, tuple) else (yield made)
        if node.window is not None and elements:
            return (yield self._sliding(node, node.window, scope, elements))
        return (yield self._batches(node, scope, elements))

    def _batches(self, node: NodePlan, scope: Scope, elements: Sequence[_Element]) -> _Task:
        edge = self._writer.edge
        before = previous = self._noop(scope)
        size = node.parallel or len(elements) or 1
        for begin in range(0, len(elements), size):
            fork, join = self._noop(scope), self._noop(scope)
            edge(previous, fork)
            for args, label in elements[begin : begin + size]:
                made = self._once(node, scope, args, label)
                first, last = made if isinstance(made, tuple) else (yield made)
                edge(fork, first)
                edge(last, join)
            previous = join
        after = self._noop(scope)
        edge(previous, after)
        return before, after

    def _sliding(
        self, node: NodePlan, limits: EachWindow, scope: Scope, elements: Sequence[_Element]
    ) -> _Task:
        edge = self._writer.edge
        self._writer.features.add(SLIDING_WINDOW)
        before = self._noop(scope)
        window = self._writer.chain.windows[before]
        window.CopyFrom(limits)
        for args, label in elements:
            made = self._once(node, scope, args, label)
            first, last = made if isinstance(made, tuple) else (yield made)
            edge(before, first)
            window.first_job_ids.append(first)
            window.last_job_ids.append(last)
        after = self._noop(scope)
        for last in window.last_job_ids:
            edge(last, after)
        return before, after


def _rows(node: NodePlan, scope: Scope) -> list[tuple[object, ...]]:
    """Returns the rows of a node's lists: the first items, the second items, and so on."""
    where = f"invalid 'each:' each:[{' '.join(map(str, node.each))}]:"
    lists: list[Sequence[object]] = []
    for pair in node.each:
        value = scope.args[pair.list_arg]
        if not isinstance(value, list | tuple):
            raise scope.path.bad_arg(
                f"{where} arg {pair.list_arg} is a {kind_name(value)}, expected a slice",
                "BAD_EACH",
                node.name,
            )
        lists.append(value)
    if len({len(values) for values in lists}) > 1:
        lengths = ", ".join(
            f"{pair.list_arg} has {len(values)}" for pair, values in zip(node.each, lists, strict=True)
        )
        raise scope.path.bad_arg(
            f"{where} lists must have the same number of elements, but {lengths}", "BAD_EACH", node.name
        )
    return list(zip(*lists, strict=True))


def _args_missing(scope: Scope, ready: ReadyNodes) -> SpinCycleError:
    waiting = ready.waiting()
    names = " ".join(node.name for node in waiting)
    absent = dict.fromkeys(arg for node in waiting for arg in node.needs if arg not in scope.args)
    return scope.path.broken_spec(
        f"Job Args are missing for [{names}]: no node that can be built sets {', '.join(absent)}",
        "JOB_ARGS_MISSING",
    )
