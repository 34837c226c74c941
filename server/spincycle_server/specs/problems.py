"""What is wrong with spec files: one problem each, with where it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from spincycle_server.specs.model import Position


class Severity(StrEnum):
    """How bad a problem is: with errors a Request Manager does not start, warnings are logged."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    Attributes:
        position: Where it is.
        severity: How bad it is.
        code: A stable upper-case word for programs, as "UNKNOWN_DEP".
        message: One sentence.
        sequence: The sequence that it is in, or "".
        node: The node that it is in, or "".
        field: The field that it is in, or "".
    """

    position: Position
    severity: Severity
    code: str
    message: str
    sequence: str = ""
    node: str = ""
    field: str = ""

    @property
    def sort_key(self) -> tuple[str, int, int, str]:
        """By file and place."""
        return self.position.file, self.position.line, self.position.column, self.code

    def __str__(self) -> str:
        where = f"in sequence {self.sequence}" if self.sequence else ""
        where += f", node {self.node}" if self.node else ""
        said = f"{where}: {self.message}" if where else self.message
        return f"{self.position}: {self.severity.value}: {said} [{self.code}]"
