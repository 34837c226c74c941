"""Problems of spec files, each with its position."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from spincycle_server.specs.model import Position


class Severity(StrEnum):
    """The severity of a problem. A Request Manager does not start if specs have errors. It logs warnings."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    Attributes:
        position: The position of the problem.
        severity: ERROR or WARNING.
        code: A stable upper-case word for programs, such as "UNKNOWN_DEP".
        message: One sentence: what is wrong and what to do.
        sequence: The name of the sequence, or "".
        node: The name of the node, or "".
        field: The name of the field, or "".
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
        """The key that sorts problems by file and position."""
        return self.position.file, self.position.line, self.position.column, self.code

    def __str__(self) -> str:
        where = f"in sequence {self.sequence}" if self.sequence else ""
        where += f", node {self.node}" if self.node else ""
        said = f"{where}: {self.message}" if where else self.message
        return f"{self.position}: {self.severity.value}: {said} [{self.code}]"
