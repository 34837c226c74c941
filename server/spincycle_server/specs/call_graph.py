"""The call graph: which node calls which sequence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from spincycle_server.specs.model import NodeSpec, SequenceSpec, Specs


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a sequence by a node. A conditional has one call for each sequence that it may select."""

    caller: SequenceSpec
    node: NodeSpec
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
    """All calls of sequences that exist.

    Args:
        specs: All specs.

    Attributes:
        of: Maps each sequence to the calls of it.
        targets: Maps each sequence to the sequences that it calls, each with the first node that calls it.
    """

    def __init__(self, specs: Specs) -> None:
        self.of: Mapping[str, list[Call]] = {name: [] for name in specs.sequences}
        self.targets: Mapping[str, dict[str, NodeSpec]] = {name: {} for name in specs.sequences}
        for name, sequence in specs.sequences.items():
            for node in sequence.all_nodes:
                for target in called_by(node):
                    if target in self.of:
                        self.of[target].append(Call(sequence, node, target))
                        self.targets[name].setdefault(target, node)

    def reached(self, names: Iterable[str]) -> Iterator[str]:
        """Yields the sequences with some names, and those that they call at any depth, the nearest first.

        It takes time linear in the calls.
        """
        queue = [name for name in dict.fromkeys(names) if name in self.targets]
        known = set(queue)
        for name in queue:  # The loop appends to the queue.
            yield name
            new = [target for target in self.targets[name] if target not in known]
            known.update(new)
            queue += new
