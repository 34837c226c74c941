"""Checks the args inside a sequence: missing args, unused args, and args that two nodes set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spincycle_server.specs.call_graph import Call
from spincycle_server.specs.each import each_pairs
from spincycle_server.specs.limits import parse_key
from spincycle_server.specs.linter.arg_flow import ArgFlow, arg_cycles, unset_args
from spincycle_server.specs.linter.arg_usage import NodeUsage, SequenceUsage, node_usage
from spincycle_server.specs.linter.report import Report, arrows
from spincycle_server.specs.model import NodeSpec, Position


@dataclass(frozen=True, slots=True)
class _Start:
    """One possible start of a sequence.

    Attributes:
        args: The args that exist at the start.
        call: The call that starts it, or None if a request starts it or nothing calls it.
    """

    args: frozenset[str]
    call: Call | None


class ArgRules:
    """Checks the args inside one sequence.

    Args:
        report: Collects the problems.
        uses: The arg usage of the sequence.
        calls: The calls of the sequence.
    """

    def __init__(self, report: Report, uses: SequenceUsage, calls: Sequence[Call]) -> None:
        self._report = report
        self._uses = uses
        self._calls = calls
        self._told: set[tuple[str, str]] = set()

    def check(self) -> None:
        """Runs all checks."""
        self._check_flow()
        self._check_empty_lists()
        self._check_unused()
        self._check_set_twice()

    def _check_flow(self) -> None:
        """Reports nodes that cannot be built, because an arg is missing.

        These are only warnings in a sequence that nothing calls. It is never built, and its args
        are unknown.
        """
        for nodes in (self._uses.nodes, self._uses.all_nodes):
            self._check_flow_of(nodes)

    def _check_flow_of(self, nodes: Sequence[NodeUsage]) -> None:
        if not ArgFlow(nodes, self._uses.declared).absent:
            return
        for start in self._starts():
            flow = ArgFlow(nodes, start.args)
            for node, arg in unset_args(flow, nodes):
                self._tell("MISSING_ARG", f"nothing provides arg '{arg}': {self._remedy(start)}", node, arg)
            for wait in arg_cycles(flow, nodes):
                if len(wait.cycle) == 1:
                    message = f"the node needs arg '{wait.arg}', but only the node itself sets it"
                else:
                    message = (
                        f"only nodes that need this node first set arg '{wait.arg}': {arrows(wait.cycle)}; "
                        "each needs an arg that the next one sets"
                    )
                self._tell("ARG_CIRCLE", message, wait.node, wait.arg)

    def _starts(self) -> list[_Start]:
        """Returns the possible starts of the sequence, without starts that are the same for its nodes."""
        uses = self._uses
        starts: dict[frozenset[str], _Start] = {}
        if uses.sequence.request or not self._calls:
            starts[frozenset()] = _Start(uses.declared, None)
        undeclared = uses.needs - uses.declared
        for call in self._calls:
            given = node_usage(call.node).gives & undeclared
            if given not in starts:
                starts[given] = _Start(uses.declared | given, call)
        return list(starts.values())

    def _remedy(self, start: _Start) -> str:
        remedy = "declare it as an arg of the sequence, or let a node set it"
        if start.call is None:
            return remedy
        where = f"node {start.call.node.name} of sequence {start.call.caller.name}"
        return f"{remedy}; {where} calls the sequence without it"

    def _tell(self, code: str, message: str, node: NodeUsage, arg: str) -> None:
        if (node.node.name, arg) in self._told:
            return
        self._told.add((node.node.name, arg))
        field, position = _place_of(node.node, arg)
        subject = self._report.about(self._uses.sequence, node.node)
        is_built = self._uses.sequence.request or self._calls
        (subject.error if is_built else subject.warning)(code, message, field, position)

    def _check_empty_lists(self) -> None:
        """Reports nodes that cannot be built if the lists of `each` are empty."""
        nodes = self._uses.all_nodes
        set_by_each = self._uses.sets - self._uses.sets_surely
        if not set_by_each or not ArgFlow(nodes, self._uses.declared, empty_lists=True).absent:
            return
        for start in self._starts():
            flow = ArgFlow(nodes, start.args, empty_lists=True)
            for index, absent in flow.absent.items():
                for arg in sorted(absent & set_by_each):
                    self._warn_of_empty_lists(nodes[index], arg)

    def _warn_of_empty_lists(self, node: NodeUsage, arg: str) -> None:
        if (node.node.name, arg) in self._told:
            return
        self._told.add((node.node.name, arg))
        message = (
            f"only nodes with 'each' set arg '{arg}', so it is missing if the list is empty: "
            "declare it with a default"
        )
        field, position = _place_of(node.node, arg)
        subject = self._report.about(self._uses.sequence, node.node)
        subject.warning("SET_BY_EACH_ONLY", message, field, position)

    def _check_unused(self) -> None:
        """Reports args of the sequence that no node, no limit and no `sets` of a caller uses."""
        used_elsewhere = {one.arg for call in self._calls for one in call.node.sets}
        sequence = self._uses.sequence
        used_elsewhere.update(
            part.arg for limit in sequence.limits for part in parse_key(limit.key) or () if part.arg
        )
        for arg in sequence.all_args:
            if arg.name and arg.name not in self._uses.needs and arg.name not in used_elsewhere:
                message = f"no node uses arg '{arg.name}': remove it"
                self._report.about(sequence).warning("UNUSED_ARG", message, "args", arg.position)

    def _check_set_twice(self) -> None:
        first: dict[str, NodeSpec] = {}
        for uses in self._uses.all_nodes:
            told: set[str] = set()
            for one in uses.node.sets:
                setter = first.setdefault(one.as_name, uses.node)
                if setter is not uses.node and one.as_name not in told:
                    message = (
                        f"node {setter.name} also sets arg '{one.as_name}', and the node that is built last "
                        "wins: rename one of the two"
                    )
                    subject = self._report.about(self._uses.sequence, uses.node)
                    subject.warning("SET_TWICE", message, "sets", one.position)
                told.add(one.as_name)


def _place_of(node: NodeSpec, arg: str) -> tuple[str, Position | None]:
    """Returns the field in which a node names an arg, and the arg's own position if it has one."""
    for one in node.args:
        if one.given == arg:
            return "args", one.position
    lists = {pair.list_arg for pair in each_pairs(node)}
    return ("each" if arg in lists else "if"), None
