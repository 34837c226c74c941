"""Drawing with Graphviz, where it is installed."""

from __future__ import annotations

import subprocess

from spincycle_grpc.errors import DeadlineExceededError, FailedPreconditionError, InternalError

_LONGEST_COMPLAINT = 300


def draw_svg(dot: str, limit: float = 60.0) -> str:
    """Returns a graph in Graphviz's language as an SVG drawing.

    Args:
        dot: The graph.
        limit: How many seconds the drawing may take.

    Raises:
        FailedPreconditionError: Graphviz is not installed. Reason: GRAPHVIZ_MISSING.
        DeadlineExceededError: The drawing took too long. Reason: GRAPHVIZ_TOO_SLOW.
        InternalError: Graphviz failed. Reason: GRAPHVIZ_FAILED.
    """
    try:
        drawn = subprocess.run(
            ["dot", "-Tsvg"],  # noqa: S607 (the Graphviz that the user's PATH finds is the one to use)
            input=dot.encode(),
            capture_output=True,
            timeout=limit,
            check=False,
        )
    except OSError as error:
        raise FailedPreconditionError(
            "svg needs Graphviz, whose command dot cannot be run: install it, or use another format",
            reason="GRAPHVIZ_MISSING",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DeadlineExceededError(
            f"Graphviz did not draw the graph within {limit:g} seconds: use another format for a large one",
            reason="GRAPHVIZ_TOO_SLOW",
        ) from error
    if drawn.returncode != 0:
        complaint = drawn.stderr.decode(errors="replace").strip()[:_LONGEST_COMPLAINT]
        raise InternalError(f"Graphviz failed: {complaint}", reason="GRAPHVIZ_FAILED")
    return drawn.stdout.decode()
