"""Draws graphs with Graphviz, if it is installed."""

from __future__ import annotations

import subprocess

from spincycle_grpc.errors import DeadlineExceededError, FailedPreconditionError, InternalError

_LONGEST_ERROR = 300


def draw_svg(dot: str, limit: float = 60.0) -> str:
    """Draws a graph as SVG.

    Args:
        dot: The graph in Graphviz's DOT language.
        limit: Seconds that Graphviz may take.

    Raises:
        FailedPreconditionError: Graphviz is not installed. Reason: GRAPHVIZ_MISSING.
        DeadlineExceededError: The drawing took too long. Reason: GRAPHVIZ_TOO_SLOW.
        InternalError: Graphviz failed. Reason: GRAPHVIZ_FAILED.
    """
    try:
        drawn = subprocess.run(
            ["dot", "-Tsvg"],  # noqa: S607 (uses the Graphviz on the user's PATH)
            input=dot.encode(),
            capture_output=True,
            timeout=limit,
            check=False,
        )
    except OSError as error:
        raise FailedPreconditionError(
            "the svg format needs the command dot of Graphviz: install Graphviz, or use another format",
            reason="GRAPHVIZ_MISSING",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DeadlineExceededError(
            f"Graphviz did not draw the graph within {limit:g} seconds: use another format for large graphs",
            reason="GRAPHVIZ_TOO_SLOW",
        ) from error
    if drawn.returncode != 0:
        output = drawn.stderr.decode(errors="replace").strip()[:_LONGEST_ERROR]
        raise InternalError(f"Graphviz failed: {output}", reason="GRAPHVIZ_FAILED")
    return drawn.stdout.decode()
