"""Collects problems and gives each the position of its field in the file."""

from __future__ import annotations

from spincycle_server.specs.model import NodeSpec, Position, SequenceSpec
from spincycle_server.specs.problems import Problem, Severity

_NAMES_SHOWN_AT_EACH_END = 5


class Report:
    """The problems of one run of the linter.

    Attributes:
        problems: The problems so far, in no particular order.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def about(self, sequence: SequenceSpec, node: NodeSpec | None = None) -> Subject:
        """Returns the subject that records problems of a sequence, or of one of its nodes."""
        return Subject(self, sequence, node)

    def in_order(self) -> list[Problem]:
        """Returns the problems by file and line."""
        return sorted(self.problems, key=lambda problem: (*problem.sort_key, problem.node, problem.message))


class Subject:
    """Records the problems of one sequence or node. Made by `Report.about`."""

    def __init__(self, report: Report, sequence: SequenceSpec, node: NodeSpec | None) -> None:
        self._report = report
        self._sequence = sequence
        self._node = node

    def error(self, code: str, message: str, field: str = "", position: Position | None = None) -> None:
        """Records an error.

        Args:
            code: A stable upper-case word.
            message: One sentence: what is wrong and what to do.
            field: The name of the field, as in the file.
            position: The position. Default: that of the field's value, else of the node, else of the
                sequence.
        """
        self._note(Severity.ERROR, code, message, field, position)

    def warning(self, code: str, message: str, field: str = "", position: Position | None = None) -> None:
        """Records a warning. The arguments are those of `error`."""
        self._note(Severity.WARNING, code, message, field, position)

    def _note(
        self, severity: Severity, code: str, message: str, field: str, position: Position | None
    ) -> None:
        node = self._node
        if position is None:
            position = node.positions.get(field, node.position) if node else self._sequence.position
        self._report.problems.append(
            Problem(
                position=position,
                severity=severity,
                code=code,
                message=message,
                sequence=self._sequence.name,
                node=node.name if node else "",
                field=field,
            )
        )


def arrows(cycle: list[str]) -> str:
    """Returns a cycle as messages show it: `a -> b -> a`. The middle of a long cycle is left out."""
    steps = [*cycle, cycle[0]]
    left_out = len(steps) - 2 * _NAMES_SHOWN_AT_EACH_END
    if left_out > 1:
        steps[_NAMES_SHOWN_AT_EACH_END:-_NAMES_SHOWN_AT_EACH_END] = [f"({left_out} more)"]
    return " -> ".join(steps)
