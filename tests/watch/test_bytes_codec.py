"""Numbers and texts are read as they were written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_server.watch.bytes_codec import Reader, Writer


@given(values=st.lists(st.one_of(st.integers(0, 2**64), st.text(max_size=20))))
def test_values_are_read_as_they_were_written(values: list[int | str]) -> None:
    writer = Writer()
    for value in values:
        writer.text(value) if isinstance(value, str) else writer.number(value)
    reader = Reader(bytes(writer.data))
    assert [reader.text() if isinstance(value, str) else reader.number() for value in values] == values


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 11, b"\x05abc", b"\x01\xff"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises((IndexError, ValueError)):
        Reader(data).text()


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Writer().number(-1)
