"""How far the nodes of one sequence can be built: as the builder does it, as args come to exist."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from spincycle_server.specs.linter.arg_usage import NodeUsage
from spincycle_server.specs.linter.cycles import find_cycles


class ArgFlow:
    """The nodes of one sequence, as far as they can be built.

    Args:
        nodes: The nodes.
        start: The args that exist before any node is built.
        empty_lists: Take all lists of `each` for empty: nodes that have one set nothing.

    Attributes:
        absent: Number of a node that cannot be built to the args that it lacks.
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
        """Lets args exist, and builds what can be built then."""
        queue = list(args)
        for arg in queue:  # Grows as it goes.
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
    """Returns which nodes lack which args that no node sets at all, and lets these args exist.

    Args:
        flow: Shows what cannot be built, and is changed.
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
    """A node that waits for an arg, which is set only by nodes that wait for the node.

    Attributes:
        node: The node.
        arg: The arg.
        cycle: Names of nodes, each of which waits for the next one, and the last one for `node`, the first.
    """

    node: NodeUsage
    arg: str
    cycle: list[str]


def arg_cycles(flow: ArgFlow, nodes: Sequence[NodeUsage]) -> list[ArgCycle]:
    """Returns why the nodes cannot be built that lack only args that nodes set.

    Args:
        flow: Shows what cannot be built, with every absent arg set by some node. It is changed:
            in the end, all can be.
        nodes: The nodes of the flow.
    """
    setters = _setters(nodes)
    found: list[ArgCycle] = []
    while flow.absent:
        # Whatever sets an absent arg waits too, so each way leads on and, in the end, round and round.
        waits_for: dict[int | str, Collection[int | str]] = {
            index: [arg for arg in nodes[index].needs if arg in absent]
            for index, absent in sorted(flow.absent.items())
        }
        waits_for |= {arg: setters[arg] for absent in flow.absent.values() for arg in absent}
        # Other cycles may be mere consequences of the last ones: the next round tells.
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
