"""Stamps are unique and rise with the batches of a writer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_server.store.change_stamps import MAX_BATCH, MAX_WRITER, batch_of, stamp_of


@given(writer=st.integers(1, MAX_WRITER), batch=st.integers(0, MAX_BATCH))
def test_a_stamp_has_its_writer_and_batch_and_fits_a_bigint(writer: int, batch: int) -> None:
    stamp = stamp_of(writer, batch)
    assert batch_of(stamp) == (writer, batch)
    assert 0 < stamp < 2**63
    assert batch == MAX_BATCH or stamp_of(writer, batch + 1) == stamp + 1


@pytest.mark.parametrize(
    ("writer", "batch"), [(0, 1), (-1, 1), (MAX_WRITER + 1, 1), (1, -1), (1, MAX_BATCH + 1)]
)
def test_numbers_out_of_bounds_have_no_stamp(writer: int, batch: int) -> None:
    with pytest.raises(OverflowError, match="has no stamp"):
        stamp_of(writer, batch)
