"""Where in the specs a build is: the sequence, the node of the sequence around it, and so on outwards."""

from __future__ import annotations

from spincycle_grpc.errors import InternalError, InvalidArgumentError

_LEVELS_SHOWN_AT_EACH_END = 5
_LONGEST_MESSAGE = 2000


class SpecPath:
    """A sequence that is being built.

    Attributes:
        sequence: The name of the sequence.
        outer: The sequence around it; None for the request's.
        node: The node of `outer` that it is built for; "" for the request's.
    """

    __slots__ = ("node", "outer", "sequence")

    def __init__(self, sequence: str, outer: SpecPath | None = None, node: str = "") -> None:
        self.sequence = sequence
        self.outer = outer
        self.node = node

    def describe(self, node: str = "") -> str:
        """Returns the way from the request's sequence to this one, and to a node of it where one is given.

        It reads `in seq sequence_a, node b: in seq sequence_c, node d`. Of a very long way, the
        middle is left out.
        """
        steps: list[str] = []
        path: SpecPath | None = self
        while path is not None:
            steps.append(f"in seq sequence_{path.sequence}" + (f", node {node}" if node else ""))
            node = path.node
            path = path.outer
        steps.reverse()
        left_out = len(steps) - 2 * _LEVELS_SHOWN_AT_EACH_END
        if left_out > 0:
            steps[_LEVELS_SHOWN_AT_EACH_END:-_LEVELS_SHOWN_AT_EACH_END] = [f"({left_out} more)"]
        return ": ".join(steps)

    def broken_spec(self, message: str, reason: str, node: str = "") -> InternalError:
        """Returns the error for a fault of the specs or of a job."""
        return InternalError(self._located(message, node), reason=reason)

    def bad_arg(self, message: str, reason: str, node: str = "") -> InvalidArgumentError:
        """Returns the error for args that the specs cannot use."""
        return InvalidArgumentError(self._located(message, node), reason=reason)

    def _located(self, message: str, node: str) -> str:
        # Names and values in a message can be as long as their authors like; errors travel in headers.
        if len(message) > _LONGEST_MESSAGE:
            message = f"{message[:_LONGEST_MESSAGE]}..."
        return f"{self.describe(node)}: {message}"
