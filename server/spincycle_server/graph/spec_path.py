"""The path of a build in the specs: from the request's sequence through its calls to the current sequence."""

from __future__ import annotations

from spincycle_grpc.errors import InternalError, InvalidArgumentError

_LEVELS_SHOWN_AT_EACH_END = 5
_LONGEST_MESSAGE = 2000


class SpecPath:
    """The path to a sequence that is being built.

    Attributes:
        sequence: The name of the sequence.
        outer: The path to the sequence around it, or None for the request's sequence.
        node: The node of `outer` that calls the sequence, or "" for the request's sequence.
    """

    __slots__ = ("node", "outer", "sequence")

    def __init__(self, sequence: str, outer: SpecPath | None = None, node: str = "") -> None:
        self.sequence = sequence
        self.outer = outer
        self.node = node

    def describe(self, node: str = "") -> str:
        """Returns the path from the request's sequence to this one, and to a node of it if one is given.

        The text is `in seq sequence_a, node b: in seq sequence_c, node d`. The middle of a very long
        path is left out.
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
        """Returns the error for an invalid spec or a failing job."""
        return InternalError(self._located(message, node), reason=reason)

    def bad_arg(self, message: str, reason: str, node: str = "") -> InvalidArgumentError:
        """Returns the error for args of the caller that do not fit the spec."""
        return InvalidArgumentError(self._located(message, node), reason=reason)

    def _located(self, message: str, node: str) -> str:
        # Names and values have no limit, but errors travel in headers, which do.
        if len(message) > _LONGEST_MESSAGE:
            message = f"{message[:_LONGEST_MESSAGE]}..."
        return f"{self.describe(node)}: {message}"
