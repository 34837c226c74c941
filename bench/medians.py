"""The median of some measurements, and how certain it is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Median(NamedTuple):
    """A median with its interval.

    Attributes:
        value: The median of the measurements.
        low: The lower end of the interval.
        high: The upper end of the interval.
        confidence: How often such an interval contains the true median.
    """

    value: float
    low: float
    high: float
    confidence: float


def median_of(values: Sequence[float], confidence: float = 0.95) -> Median:
    """Returns the median, with the narrowest interval between two of the values that is certain enough.

    The true median is between the k-th smallest and the k-th largest value unless fewer than k values are on
    one side of it. The number of values on one side has a binomial distribution, whatever the values mean.

    Args:
        values: The measurements.
        confidence: How often the interval must contain the true median.

    Raises:
        ValueError: There are too few values. For 95 %, at least six are needed.
    """
    ordered = sorted(values)
    number = len(ordered)
    outside, best = 0.0, None
    for rank in range(number // 2):
        outside += 2 * math.comb(number, rank) / 2**number
        if 1 - outside < confidence:
            break
        best = Median(statistics.median(ordered), ordered[rank], ordered[-1 - rank], 1 - outside)
    if best is None:
        raise ValueError(f"{number} values are too few for a confidence of {confidence:g}")
    return best
