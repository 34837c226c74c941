"""The growing pauses of `retryWait`: the only parser of them, and every rule that they must follow."""

from __future__ import annotations

import math
from collections.abc import Iterator

from spincycle_grpc.duration import parse_duration
from spincycle_server.specs.model import BackoffSpec, NodeSpec

LARGEST_FACTOR = 1000.0
"""The largest factor between two pauses."""

LONGEST = "24h"
"""The longest pause if `max` is not given."""


def factor_of(backoff: BackoffSpec) -> float:
    """Returns the factor between two pauses; NaN if the text is not a number."""
    try:
        return float(backoff.factor or 1)
    except ValueError:
        return math.nan


def backoff_problems(node: NodeSpec) -> Iterator[tuple[str, str]]:
    """Yields the code and the message of each problem of a node's `retryWait`, except of its first pause."""
    backoff = node.backoff
    if backoff is None:
        return
    if not 1 <= factor_of(backoff) <= LARGEST_FACTOR:
        message = f"'factor' is '{backoff.factor}', must be a number from 1 to {LARGEST_FACTOR:.0f}"
        yield "BAD_FACTOR", message
    try:
        longest = parse_duration(backoff.max or LONGEST)
    except ValueError as error:
        yield "BAD_DURATION", f"'max' is '{backoff.max}', {error}"
        return
    try:
        first = parse_duration(node.retry_wait)
    except ValueError:  # The linter reports it as any other duration.
        return
    if longest < first:
        yield (
            "MAX_BELOW_FIRST",
            f"'max' is {backoff.max or LONGEST}, must be at least 'first', {node.retry_wait}",
        )
