"""Checks the deps of the nodes of one sequence."""

from __future__ import annotations

from collections.abc import Mapping

from spincycle_server.specs.linter.cycles import find_cycles
from spincycle_server.specs.linter.report import Report, arrows
from spincycle_server.specs.model import NodeSpec, SequenceSpec


def check_deps(report: Report, sequence: SequenceSpec) -> None:
    """Finds deps on unknown nodes, and cycles of deps."""
    _check_deps(report, sequence, sequence.nodes, "the sequence")
    _check_deps(report, sequence, sequence.final_nodes, "the 'finally' of the sequence")


def _check_deps(report: Report, sequence: SequenceSpec, nodes: Mapping[str, NodeSpec], where: str) -> None:
    graph: dict[str, list[str]] = {}
    for node in nodes.values():
        graph[node.name] = []
        for dep in dict.fromkeys(node.deps):
            if dep in nodes:
                graph[node.name].append(dep)
            else:
                message = f"{where} has no node '{dep}': correct the name, or remove the dep"
                report.about(sequence, node).error("UNKNOWN_DEP", message, "deps")
    for cycle in find_cycles(graph):
        message = f"deps form a cycle: {arrows(cycle)}; remove one of them"
        report.about(sequence, nodes[cycle[0]]).error("DEP_CIRCLE", message, "deps")
