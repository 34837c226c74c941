"""Tests of chunks of values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spincycle_server.database.chunks import IDS_AT_ONCE, in_chunks


@given(st.lists(st.integers(), max_size=40), st.integers(1, 50))
def test_chunks_have_all_values_in_their_order(values: list[int], size: int) -> None:
    chunks = list(in_chunks(iter(values), size))
    assert [value for chunk in chunks for value in chunk] == values
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= size for chunk in chunks[-1:])


def test_ids_are_split_at_the_limit_of_a_statement() -> None:
    assert [len(chunk) for chunk in in_chunks(range(2 * IDS_AT_ONCE + 1))] == [IDS_AT_ONCE, IDS_AT_ONCE, 1]
