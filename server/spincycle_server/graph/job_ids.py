"""Job ids: four characters of 0-9A-Za-z, unique within a request."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from random import Random
from string import ascii_lowercase, ascii_uppercase, digits

_CHARACTERS = digits + ascii_uppercase + ascii_lowercase
_PAIRS = [first + second for first in _CHARACTERS for second in _CHARACTERS]

JOB_ID_COUNT = len(_PAIRS) ** 2
"""The number of job ids: 62 to the fourth power."""


_SHARED = Random()  # noqa: S311 (job ids are not secret)
"""Seeded once, because seeding takes longer than building a small chain."""


def reseed() -> None:
    """Seeds the shared source anew. Call it after a fork: otherwise both processes would use the same ids."""
    _SHARED.seed()


def job_ids(source: Random | None = None) -> Iterator[str]:
    """Yields every job id once, in a random order.

    The ids are visited in strides of a length that is coprime to their number. Such a walk visits
    every id before it repeats one. So no id needs to be remembered, and each costs the same.

    Args:
        source: The source of randomness. Equal seeds give equal ids. Default: a shared source.
    """
    source = source or _SHARED
    # Not `randrange`, which takes ten times as long. The steps of `random` are fine enough for so few ids.
    position = int(source.random() * JOB_ID_COUNT)
    stride = int(source.random() * JOB_ID_COUNT)
    while gcd(stride, JOB_ID_COUNT) != 1:
        stride = int(source.random() * JOB_ID_COUNT)
    count, pairs, pair_count = JOB_ID_COUNT, _PAIRS, len(_PAIRS)
    for _ in range(count):
        yield pairs[position // pair_count] + pairs[position % pair_count]
        position = (position + stride) % count
