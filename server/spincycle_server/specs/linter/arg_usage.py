"""The arg usage of nodes and sequences: the names of the args that they declare, need, give and set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spincycle_server.specs.each import each_pairs
from spincycle_server.specs.model import NodeSpec, SequenceSpec


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """The arg usage of a node.

    Attributes:
        node: The node.
        needs: The args that must exist before it is built.
        gives: The args that its job or sequence is given, by their names inside.
        sets: The args that exist after it is built.
        may_set_nothing: It has `each`, so an empty list builds nothing and sets nothing.
    """

    node: NodeSpec
    needs: tuple[str, ...]
    gives: frozenset[str]
    sets: tuple[str, ...]
    may_set_nothing: bool


@dataclass(frozen=True, slots=True)
class SequenceUsage:
    """The arg usage of a sequence.

    Attributes:
        sequence: The sequence.
        declared: Its required, optional and static args.
        nodes: The usage of its nodes, in the order of the file.
        finals: The usage of the nodes of its `finally`. They see the args that its nodes set.
        needs: The args that all these nodes need.
        sets: The args that its nodes set.
        sets_surely: The args that its nodes set even if all lists are empty.
    """

    sequence: SequenceSpec
    declared: frozenset[str]
    nodes: tuple[NodeUsage, ...]
    finals: tuple[NodeUsage, ...]
    needs: frozenset[str]
    sets: frozenset[str]
    sets_surely: frozenset[str]

    @property
    def all_nodes(self) -> tuple[NodeUsage, ...]:
        """The usage of its nodes, and then of those of its `finally`."""
        return self.nodes + self.finals


def sequence_usage(sequence: SequenceSpec) -> SequenceUsage:
    """Returns the arg usage of a sequence, in time linear in its size."""
    nodes = tuple(node_usage(node) for node in sequence.nodes.values())
    finals = tuple(node_usage(node) for node in sequence.final_nodes.values())
    return SequenceUsage(
        sequence=sequence,
        declared=frozenset(arg.name for arg in sequence.all_args),
        nodes=nodes,
        finals=finals,
        needs=_union(node.needs for node in nodes + finals),
        sets=_union(node.sets for node in nodes),
        sets_surely=_union(node.sets for node in nodes if not node.may_set_nothing),
    )


def node_usage(node: NodeSpec) -> NodeUsage:
    """Returns the arg usage of a node."""
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
