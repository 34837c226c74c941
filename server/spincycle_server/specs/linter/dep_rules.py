"""Checks the deps of the nodes of one sequence."""

from __future__ import annotations

from spincycle_server.specs.linter.cycles import find_cycles
from spincycle_server.specs.linter.report import Report, arrows
from spincycle_server.specs.model import SequenceSpec


def check_deps(report: Report, sequence: SequenceSpec) -> None:
    """Finds deps on unknown nodes, and cycles of deps."""
    graph: dict[str, list[str]] = {}
    for node in sequence.nodes.values():
        graph[node.name] = []
        for dep in dict.fromkeys(node.deps):
            if dep in sequence.nodes:
                graph[node.name].append(dep)
            else:
                message = f"the sequence has no node '{dep}': correct the name, or remove the dep"
                report.about(sequence, node).error("UNKNOWN_DEP", message, "deps")
    for cycle in find_cycles(graph):
        message = f"deps form a cycle: {arrows(cycle)}; remove one of them"
        report.about(sequence, sequence.nodes[cycle[0]]).error("DEP_CIRCLE", message, "deps")
