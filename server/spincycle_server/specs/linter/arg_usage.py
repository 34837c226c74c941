"""Which args nodes need, give and set, and which exist in a sequence: names read off the specs once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spincycle_server.specs.each import each_pairs
from spincycle_server.specs.model import NodeSpec, SequenceSpec


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """What a node does with args.

    Attributes:
        node: The node.
        needs: The args without which it cannot be built.
        gives: The names of what is inside it is given.
        sets: The args that exist once it is built.
        may_set_nothing: It has `each`: for an empty list nothing is built, and nothing set.
    """

    node: NodeSpec
    needs: tuple[str, ...]
    gives: frozenset[str]
    sets: tuple[str, ...]
    may_set_nothing: bool


@dataclass(frozen=True, slots=True)
class SequenceUsage:
    """What a sequence does with args.

    Attributes:
        sequence: The sequence.
        declared: Its required, optional and static args.
        nodes: What its nodes do, in the order of the file.
        needs: What any of its nodes needs.
        sets: What its nodes set.
        sets_surely: What its nodes set even if all lists are empty.
    """

    sequence: SequenceSpec
    declared: frozenset[str]
    nodes: tuple[NodeUsage, ...]
    needs: frozenset[str]
    sets: frozenset[str]
    sets_surely: frozenset[str]


def sequence_usage(sequence: SequenceSpec) -> SequenceUsage:
    """Returns what a sequence does with args, in time linear in its size."""
    nodes = tuple(_node_uses(node) for node in sequence.nodes.values())
    return SequenceUsage(
        sequence=sequence,
        declared=frozenset(
            arg.name for args in (sequence.required, sequence.optional, sequence.static) for arg in args
        ),
        nodes=nodes,
        needs=_union(node.needs for node in nodes),
        sets=_union(node.sets for node in nodes),
        sets_surely=_union(node.sets for node in nodes if not node.may_set_nothing),
    )


def _node_uses(node: NodeSpec) -> NodeUsage:
    pairs = each_pairs(node)
    if_args = [node.if_arg] if node.category == "conditional" and node.if_arg else []
    needs = [arg.given for arg in node.args if arg.given] + [pair.list_arg for pair in pairs] + if_args
    gives = [arg.expected for arg in node.args] + [pair.element for pair in pairs] + if_args
    return NodeUsage(
        node=node,
        needs=tuple(dict.fromkeys(needs)),
        gives=frozenset(gives),
        sets=tuple(dict.fromkeys(one.as_name for one in node.sets)),
        may_set_nothing=bool(node.each),
    )


def _union(names: Iterable[tuple[str, ...]]) -> frozenset[str]:
    return frozenset(name for group in names for name in group)
