"""Text of jobs and users in Markdown: always as code, so it cannot be markup, a link or a mention."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from spincycle_grpc.cli.output import printable

_BACKTICKS = re.compile("`+")
_SHORTEST_FENCE = 3


def code(text: str) -> str:
    """Returns a text as a code span on one line. An empty text gives an empty text."""
    shown = printable(text)
    if not shown:
        return ""
    quote = "`" * (_longest_run([shown]) + 1)
    # One space on each side is not shown. It separates backticks of the text from those around it.
    needs_space = shown[0] in "` " or shown[-1] in "` "
    return f"{quote} {shown} {quote}" if needs_space else f"{quote}{shown}{quote}"


def fenced(lines: Iterable[str]) -> Iterator[str]:
    """Yields the lines of a code block that none of the given lines can end."""
    shown = [printable(line) for line in lines]
    fence = "`" * max(_SHORTEST_FENCE, _longest_run(shown) + 1)
    yield f"{fence}text"
    yield from shown
    yield fence


def _longest_run(lines: Iterable[str]) -> int:
    """Returns the length of the longest run of backticks."""
    return max((len(run) for line in lines for run in _BACKTICKS.findall(line)), default=0)
