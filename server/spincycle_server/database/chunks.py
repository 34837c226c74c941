"""Many values as chunks, because a statement has a limited number of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

IDS_AT_ONCE = 500
"""The maximum number of ids in one statement."""

_Value = TypeVar("_Value")


def in_chunks(values: Iterable[_Value], size: int = IDS_AT_ONCE) -> Iterator[list[_Value]]:
    """Yields the values in their order, in lists of up to `size`. Without values, it yields nothing."""
    all_values = list(values)
    for start in range(0, len(all_values), size):
        yield all_values[start : start + size]
