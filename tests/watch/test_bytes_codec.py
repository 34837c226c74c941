"""Numbers and texts are read as they were written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_server.watch.bytes_codec import Reader, Writer

_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(values=st.lists(st.one_of(st.integers(0, 2**63 - 1), _texts)))
def test_values_are_read_as_they_were_written(values: list[int | str]) -> None:
    writer = Writer()
    for value in values:
        writer.text(value) if isinstance(value, str) else writer.number(value)
    reader = Reader(bytes(writer.data))
    assert [reader.text() if isinstance(value, str) else reader.number() for value in values] == values


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 11, b"\x05abc", b"\x01\xff", b"\x02a\0"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises((IndexError, ValueError)):
        Reader(data).text()


def test_a_number_that_a_database_cannot_store_is_not_read() -> None:
    with pytest.raises(ValueError, match="too large"):
        Reader(b"\x80" * 9 + b"\x01").number()  # 2^63


@pytest.mark.parametrize("number", [-1, 2**63])
def test_a_number_that_cannot_be_read_is_not_written(number: int) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        Writer().number(number)
