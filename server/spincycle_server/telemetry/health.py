"""Whether a server can take work. The answer is in memory, so that a probe costs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Readiness:
    """Whether a server can take work, and otherwise why not."""

    def __init__(self) -> None:
        self._checks: list[Callable[[], str]] = [lambda: "the server is starting"]

    def start(self, *checks: Callable[[], str]) -> None:
        """Replaces the answer that the server is starting.

        Args:
            checks: Each returns "", or one sentence that says what is missing. They must not block.
        """
        self._checks = list(checks)

    @property
    def problem(self) -> str:
        """The first thing that is missing; "" if the server can take work."""
        return next((problem for check in self._checks if (problem := check())), "")


def first_problem(parts: Iterable[Readiness]) -> str:
    """Returns the first thing that is missing in any of some servers; "" if all can take work."""
    return next((problem for part in parts if (problem := part.problem)), "")
