"""The build order of the nodes of one sequence: a node is ready when all args that it needs exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush

from spincycle_server.graph.plan import NodePlan, SequencePlan


class ReadyNodes:
    """Yields the ready nodes. Of several ready nodes, the first in the order of the file comes first.

    Args:
        plan: The sequence.
        args: The args that exist at the start.
    """

    def __init__(self, plan: SequencePlan, args: Mapping[str, object]) -> None:
        self._plan = plan
        self._ready: list[int] = []
        self._absent: dict[int, int] = {}
        for node in plan.nodes:
            absent = 0
            for arg in node.needs:
                if arg not in args:
                    absent += 1
            if absent:
                self._absent[node.index] = absent
            else:
                self._ready.append(node.index)

    def __iter__(self) -> Iterator[NodePlan]:
        nodes = self._plan.nodes
        ready = self._ready
        while ready:
            yield nodes[heappop(ready)]

    def arg_exists(self, arg: str) -> None:
        """Records that an arg exists from now on."""
        for index in self._plan.needed_by.get(arg, ()):
            absent = self._absent[index] - 1
            if absent:
                self._absent[index] = absent
            else:
                del self._absent[index]
                heappush(self._ready, index)

    def waiting(self) -> list[NodePlan]:
        """Returns the nodes that lack an arg, in the order of the file."""
        return [node for node in self._plan.nodes if node.index in self._absent]
