"""The scope of a sequence that is being built: its args, and the node that calls it."""

from __future__ import annotations

from collections.abc import Mapping

from spincycle_server.graph.plan import NodePlan, SequencePlan
from spincycle_server.graph.ready_nodes import ReadyNodes
from spincycle_server.graph.spec_path import SpecPath


class Scope:
    """The scope of one sequence.

    Args:
        plan: The plan of the sequence.
        sequence_id: The id of its first job.
        args: The args that it is given. The scope keeps the dict and adds the args that nodes set.
        outer: The scope of the sequence around it, or None for the request's sequence.
        node: The node of `outer` that calls the sequence.
        label: The label of the element of `each` for which it is called; "" if there is none.

    Attributes:
        path: The path of the sequence in the specs.
        parent_sequence_id: The id of the sequence around it, or "".
        around_id: The id of the sequence around it and its `finally`; "" if it has no `finally`.
    """

    __slots__ = (
        "_ready",
        "args",
        "around_id",
        "label",
        "node",
        "outer",
        "parent_sequence_id",
        "path",
        "plan",
        "sequence_id",
    )

    def __init__(
        self,
        plan: SequencePlan,
        sequence_id: str,
        args: dict[str, object],
        outer: Scope | None = None,
        node: NodePlan | None = None,
        *,
        label: str = "",
    ) -> None:
        self.plan = plan
        self.sequence_id = sequence_id
        self.args = args
        self.outer = outer
        self.node = node
        self.label = label
        self.parent_sequence_id = outer.sequence_id if outer else ""
        self.around_id = ""
        self.path: SpecPath = SpecPath(plan.name, outer.path if outer else None, node.name if node else "")
        for name, value in plan.defaults:
            args.setdefault(name, value)
        self._ready: ReadyNodes | None = None

    def ready_nodes(self) -> ReadyNodes:
        """Returns the nodes that can be built, of which there are more when nodes have set args."""
        self._ready = ReadyNodes(self.plan, self.args)
        return self._ready

    def enter(self, sequence_id: str) -> None:
        """Moves the sequence into another one, which gets its id and has room for its `finally`.

        Args:
            sequence_id: The new id of the sequence.
        """
        self.parent_sequence_id = self.around_id = self.sequence_id
        self.sequence_id = sequence_id

    def given_to(self, node: NodePlan) -> dict[str, object]:
        """Returns the args that a node is given, without the elements of `each`."""
        args = self.args
        return {expected: args[given] for expected, given in node.args}

    def take_sets(self, node: NodePlan, made: str, args: Mapping[str, object]) -> None:
        """Copies the args that a node sets into this scope.

        Args:
            node: The node.
            made: The type of the job, or the name of the sequence, that was built for the node.
            args: The args of that job or sequence.

        Raises:
            InternalError: The node sets an arg that does not exist in `args`. Reason: ARG_NOT_SET.
        """
        for arg, as_name in node.sets:
            if arg not in args:
                raise self.path.broken_spec(
                    f"expected {made} to set {arg} in jobargs", "ARG_NOT_SET", node.name
                )
            is_new = as_name not in self.args
            self.args[as_name] = args[arg]
            if is_new and self._ready is not None:
                self._ready.arg_exists(as_name)

    def leave(self) -> None:
        """Copies the args that the node sets to the scope around the sequence, which has ended.

        Raises:
            InternalError: See `take_sets`.
        """
        if self.outer is not None and self.node is not None:
            self.outer.take_sets(self.node, self.plan.name, self.args)
