"""Short forms of request ids: prefixes that are unique among the ids that are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise, takewhile

SHORTEST = 8
"""The minimum length of a prefix. The first seven characters are the time of creation in seconds."""


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Returns for each id its shortest prefix that no other one of them has, but at least `SHORTEST`."""
    ordered = sorted(set(ids))
    lengths = dict.fromkeys(ordered, SHORTEST)
    for first, second in pairwise(ordered):
        same = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
        unique = sum(1 for _ in same) + 1
        lengths[first], lengths[second] = max(lengths[first], unique), max(lengths[second], unique)
    return {one: one[:length] for one, length in lengths.items()}


def shortened(ids: Sequence[str]) -> list[str]:
    """Returns the short form of each id, in their order."""
    short = short_ids(ids)
    return [short[one] for one in ids]
