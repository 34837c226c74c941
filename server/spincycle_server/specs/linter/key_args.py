"""Which args of sequences the keys of limits show, also by way of the sequences that they call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from spincycle_server.specs.call_graph import CallGraph
from spincycle_server.specs.each import each_pairs
from spincycle_server.specs.limits import parse_key
from spincycle_server.specs.model import NodeSpec, Position, Specs


class RenamedArg(NamedTuple):
    """An arg that a node gives to what it calls.

    Attributes:
        inside: Its name there.
        outside: Its name in the sequence of the node.
        field: The field of the node that gives it.
        position: Where that is written; None if the field has no positions.
    """

    inside: str
    outside: str
    field: str
    position: Position | None


def renamed_args(node: NodeSpec) -> Iterator[RenamedArg]:
    """Yields the args that a node gives."""
    for arg in node.args:
        yield RenamedArg(arg.expected, arg.given, "args", arg.position)
    for pair in each_pairs(node):
        yield RenamedArg(pair.element, pair.list_arg, "each", None)


def key_args(specs: Specs, calls: CallGraph) -> Mapping[str, Mapping[str, str]]:
    """Returns the args of each sequence that keys show, each with the name of a sequence that has such a key.

    It looks at the calls of a sequence once for each of its args that keys show.
    """
    shown: dict[str, dict[str, str]] = {name: {} for name in specs.sequences}
    queue: list[tuple[str, str]] = []
    for name, sequence in specs.sequences.items():
        for limit in sequence.limits:
            for part in parse_key(limit.key) or ():
                if part.arg and part.arg not in shown[name]:
                    shown[name][part.arg] = name
                    queue.append((name, part.arg))
    for name, arg in queue:  # The loop appends to the queue.
        for call in calls.of[name]:
            outer = shown[call.caller.name]
            for renamed in renamed_args(call.node):
                if renamed.inside == arg and renamed.outside not in outer:
                    outer[renamed.outside] = shown[name][arg]
                    queue.append((call.caller.name, renamed.outside))
    return shown
