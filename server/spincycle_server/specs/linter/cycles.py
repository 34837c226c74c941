"""Finds cycles in directed graphs, in linear time and without recursion."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from typing import TypeVar

_T = TypeVar("_T", bound=Hashable)


def find_cycles(graph: Mapping[_T, Collection[_T]], *, last_only: bool = False) -> list[list[_T]]:
    """Finds one cycle per strongly connected component.

    Args:
        graph: Maps each point to the points that it leads to. These must be keys of the graph too.
        last_only: Leave out components from which a path leads to a cycle in another component.

    Returns:
        The points of each cycle. Each cycle starts with its point that comes first in the graph.
    """
    order = {point: index for index, point in enumerate(graph)}
    leads_to_cycle: set[_T] = set()
    found: list[list[_T]] = []
    for component in _components(graph):
        members = set(component)
        onward = any(
            after in leads_to_cycle for point in component for after in graph[point] if after not in members
        )
        is_cyclic = len(component) > 1 or component[0] in graph[component[0]]
        if is_cyclic and not (last_only and onward):
            found.append(_cycle_through(min(component, key=order.__getitem__), graph, members))
        if is_cyclic or onward:
            leads_to_cycle |= members
    return sorted(found, key=lambda cycle: order[cycle[0]])


def _cycle_through(start: _T, graph: Mapping[_T, Collection[_T]], members: set[_T]) -> list[_T]:
    """Returns the shortest cycle through a point of a component, by breadth-first search."""
    came_from: dict[_T, _T] = {}
    queue = [start]
    for point in queue:  # The loop appends to the queue.
        for after in graph[point]:
            if after == start:
                path = [point]
                while path[-1] != start:
                    path.append(came_from[path[-1]])
                return path[::-1]
            if after in members and after not in came_from:
                came_from[after] = point
                queue.append(after)
    raise ValueError(f"{start} is not in a cycle")


def _components(graph: Mapping[_T, Collection[_T]]) -> Iterator[list[_T]]:
    """Yields the strongly connected components, each after the ones it leads to (Tarjan's algorithm)."""
    number: dict[_T, int] = {}
    lowest: dict[_T, int] = {}
    open_points: list[_T] = []
    is_open: set[_T] = set()
    for root in graph:
        if root in number:
            continue
        path: list[tuple[_T, Iterator[_T]]] = [(root, iter(graph[root]))]
        number[root] = lowest[root] = len(number)
        open_points.append(root)
        is_open.add(root)
        while path:
            point, rest = path[-1]
            for after in rest:
                if after not in number:
                    number[after] = lowest[after] = len(number)
                    open_points.append(after)
                    is_open.add(after)
                    path.append((after, iter(graph[after])))
                    break
                if after in is_open:
                    lowest[point] = min(lowest[point], number[after])
            else:
                path.pop()
                if path:
                    lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[point])
                if lowest[point] == number[point]:
                    component: list[_T] = []
                    while not component or component[-1] != point:
                        component.append(open_points.pop())
                    is_open.difference_update(component)
                    yield component
