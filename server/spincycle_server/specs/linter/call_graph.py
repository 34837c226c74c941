"""The call graph: which node calls which sequence. Finds cycles and sequences that no request reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spincycle_server.specs.linter.arg_usage import NodeUsage, SequenceUsage
from spincycle_server.specs.linter.cycles import find_cycles
from spincycle_server.specs.linter.report import Report, arrows
from spincycle_server.specs.model import NodeSpec, SequenceSpec


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a sequence by a node. A conditional has one call for each sequence that it may select."""

    caller: SequenceSpec
    node: NodeUsage
    target: str


def called_by(node: NodeSpec) -> list[str]:
    """Returns the names of the sequences that a node may call, without duplicates."""
    if node.category == "sequence":
        return [node.type] if node.type else []
    return list(dict.fromkeys(node.eq.values())) if node.category == "conditional" else []


def calling_field(node: NodeSpec) -> str:
    """Returns the field of a node that names the sequences it calls."""
    return "eq" if node.category == "conditional" else "type"


class CallGraph:
    """All calls in the specs.

    Args:
        uses: The arg usage of each sequence.

    Attributes:
        of: Maps each sequence to the calls of it.
    """

    def __init__(self, uses: Mapping[str, SequenceUsage]) -> None:
        self._uses = uses
        self.of: dict[str, list[Call]] = {name: [] for name in uses}
        self._targets: dict[str, dict[str, NodeSpec]] = {name: {} for name in uses}
        for name, sequence in uses.items():
            for node in sequence.nodes:
                for target in called_by(node.node):
                    if target in uses:
                        self.of[target].append(Call(sequence.sequence, node, target))
                        self._targets[name].setdefault(target, node.node)

    def check(self, report: Report) -> None:
        """Reports call cycles and sequences that no request reaches."""
        self._check_cycles(report)
        self._check_reached(report)

    def _check_cycles(self, report: Report) -> None:
        for cycle in find_cycles(self._targets):
            sequence = self._uses[cycle[0]].sequence
            node = self._targets[cycle[0]][(cycle[1:] or cycle)[0]]
            message = f"sequences call each other in a cycle: {arrows(cycle)}; remove one of the calls"
            report.about(sequence, node).error("SEQUENCE_CIRCLE", message, calling_field(node))

    def _check_reached(self, report: Report) -> None:
        reached = {name: None for name, uses in self._uses.items() if uses.sequence.request}
        queue = list(reached)
        for name in queue:  # The loop appends to the queue.
            for target in self._targets[name]:
                if target not in reached:
                    reached[target] = None
                    queue.append(target)
        for name, uses in self._uses.items():
            if name not in reached:
                message = "no request reaches the sequence: set `request: true`, call it, or remove it"
                report.about(uses.sequence).warning("UNREACHED_SEQUENCE", message)
