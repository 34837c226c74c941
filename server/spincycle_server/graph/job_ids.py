"""The ids of the jobs of one request: four characters of 0-9A-Za-z, each id once."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from random import Random
from string import ascii_lowercase, ascii_uppercase, digits

_CHARACTERS = digits + ascii_uppercase + ascii_lowercase
_PAIRS = [first + second for first in _CHARACTERS for second in _CHARACTERS]

JOB_ID_COUNT = len(_PAIRS) ** 2
"""How many job ids there are: 62 to the fourth."""


_SHARED = Random()  # noqa: S311 (job ids are no secrets)
"""Seeded once: that takes longer than to build a small chain."""


def job_ids(source: Random | None = None) -> Iterator[str]:
    """Yields all job ids, each once, in an order that the source of randomness decides.

    It walks over the ids in steps of a length that has no factor in common with their number.
    Such a walk comes by each id before it comes by one again, so that no id that was given out
    has to be remembered, and the last one costs as much as the first.

    Args:
        source: Gives the same ids again when it is seeded the same. Default: one that all share.
    """
    source = source or _SHARED
    position = source.randrange(JOB_ID_COUNT)
    stride = source.randrange(1, JOB_ID_COUNT)
    while gcd(stride, JOB_ID_COUNT) != 1:
        stride = source.randrange(1, JOB_ID_COUNT)
    for _ in range(JOB_ID_COUNT):
        high, low = divmod(position, len(_PAIRS))
        yield _PAIRS[high] + _PAIRS[low]
        position = (position + stride) % JOB_ID_COUNT
