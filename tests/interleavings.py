"""How many random interleavings the tests of models run."""

from __future__ import annotations

import math
import os

SHARE = float(os.environ.get("SPINCYCLE_INTERLEAVINGS", "0.2"))
"""The share of the interleavings that run. `make interleavings` runs all of them, as CI does."""


def share_of(count: float) -> int:
    """Returns the share of a number of interleavings, rounded up."""
    return math.ceil(SHARE * count)
