"""The arg flow in one sequence: which nodes can be built, in the order in which args come to exist."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from spincycle_server.specs.linter.arg_usage import NodeUsage
from spincycle_server.specs.linter.cycles import find_cycles


class ArgFlow:
    """Finds the nodes of one sequence that cannot be built.

    Args:
        nodes: The nodes.
        start: The args that exist before any node is built.
        empty_lists: Assume that all lists of `each` are empty, so that nodes with `each` set nothing.

    Attributes:
        absent: Maps the number of each node that cannot be built to the args that it lacks.
    """

    def __init__(
        self, nodes: Sequence[NodeUsage], start: Iterable[str], *, empty_lists: bool = False
    ) -> None:
        self._nodes = nodes
        self._empty_lists = empty_lists
        self._exist: set[str] = set()
        self._needed_by: dict[str, list[int]] = {}
        self.absent: dict[int, set[str]] = {}
        built: list[str] = list(start)
        for index, node in enumerate(nodes):
            if node.needs:
                self.absent[index] = set(node.needs)
                for arg in node.needs:
                    self._needed_by.setdefault(arg, []).append(index)
            else:
                built += self._set_by(node)
        self.provide(built)

    def provide(self, args: Iterable[str]) -> None:
        """Makes args exist and builds the nodes that have become ready."""
        queue = list(args)
        for arg in queue:  # The loop appends to the queue.
            if arg in self._exist:
                continue
            self._exist.add(arg)
            for index in self._needed_by.get(arg, ()):
                absent = self.absent[index]
                absent.discard(arg)
                if not absent:
                    del self.absent[index]
                    queue += self._set_by(self._nodes[index])

    def _set_by(self, node: NodeUsage) -> tuple[str, ...]:
        return () if self._empty_lists and node.may_set_nothing else node.sets


def unset_args(flow: ArgFlow, nodes: Sequence[NodeUsage]) -> list[tuple[NodeUsage, str]]:
    """Returns each node and arg where the node lacks the arg and no node sets it. Makes these args exist.

    Args:
        flow: The flow. It is changed.
        nodes: The nodes of the flow.
    """
    setters = _setters(nodes)
    found = [
        (nodes[index], arg)
        for index, absent in sorted(flow.absent.items())
        for arg in nodes[index].needs
        if arg in absent and arg not in setters
    ]
    flow.provide([arg for _, arg in found])
    return found


@dataclass(frozen=True, slots=True)
class ArgCycle:
    """A node that needs an arg, but all nodes that set the arg need the node first.

    Attributes:
        node: The node.
        arg: The arg.
        cycle: Names of nodes, `node` first. Each needs an arg of the next, and the last one of `node`.
    """

    node: NodeUsage
    arg: str
    cycle: list[str]


def arg_cycles(flow: ArgFlow, nodes: Sequence[NodeUsage]) -> list[ArgCycle]:
    """Returns the cycles that keep nodes from being built.

    Args:
        flow: The flow. Some node must set each absent arg. It is changed: in the end, all nodes are
            built.
        nodes: The nodes of the flow.
    """
    setters = _setters(nodes)
    found: list[ArgCycle] = []
    while flow.absent:
        # Every node that sets an absent arg lacks an arg itself, so every path ends in a cycle.
        waits_for: dict[int | str, Collection[int | str]] = {
            index: [arg for arg in nodes[index].needs if arg in absent]
            for index, absent in sorted(flow.absent.items())
        }
        waits_for |= {arg: setters[arg] for absent in flow.absent.values() for arg in absent}
        # Cycles that lead to these may only be consequences of them. The next round shows whether they are.
        for cycle in find_cycles(waits_for, last_only=True):
            indices = [point for point in cycle if isinstance(point, int)]
            node = nodes[indices[0]]
            found.append(ArgCycle(node, str(cycle[1]), [nodes[index].node.name for index in indices]))
            flow.provide(node.needs)
    return found


def _setters(nodes: Sequence[NodeUsage]) -> dict[str, list[int]]:
    setters: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        for arg in node.sets:
            setters.setdefault(arg, []).append(index)
    return setters
