"""Cursors are read as they were written, and nothing else is."""

from __future__ import annotations

import contextlib
from base64 import urlsafe_b64encode
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.store.change_stamps import MAX_BATCH, MAX_WRITER
from spincycle_server.store.changes import TryKey
from spincycle_server.store.positions import Position, WriterPosition
from spincycle_server.watch.cursor import MAX_LENGTH, MAX_WRITERS, Cursor, read_cursor, scope_of
from tests.watch.positions import position

_writers = st.dictionaries(
    st.integers(1, MAX_WRITER),
    st.builds(WriterPosition, st.integers(0, MAX_BATCH), st.integers(0, 0xFFFF), st.just(0), st.just(False)),
    max_size=8,
)
_positions = st.one_of(st.none(), st.builds(Position, _writers, st.just(MAX_WRITER), st.integers(0, 2**60)))
_characters = st.characters(codec="utf-8", exclude_characters="\0")
_keys = st.builds(
    TryKey, st.text(_characters, max_size=20), st.integers(0, 2**62), st.integers(0, 2**62),
    st.text(_characters, max_size=4), st.integers(0, 32767),
)  # fmt: skip
_cursors = st.builds(
    Cursor, st.integers(0, 2**32 - 1), _positions, _positions, st.one_of(st.none(), _keys), st.booleans(),
    st.booleans(),
)  # fmt: skip


@given(cursor=_cursors)
def test_a_cursor_is_read_as_it_was_written(cursor: Cursor) -> None:
    assert read_cursor(cursor.text(), cursor.scope) == cursor


@given(cursor=_cursors, at=st.integers(0, 10_000), sign=st.sampled_from("AZaz09-_=%\0é"))
def test_a_changed_cursor_is_refused(cursor: Cursor, at: int, sign: str) -> None:
    text = cursor.text()
    at %= len(text)
    changed = text[:at] + sign + text[at + 1 :]
    with contextlib.suppress(InvalidArgumentError):
        assert read_cursor(changed, cursor.scope) == cursor  # Some bits of the last sign do not count.


@pytest.mark.parametrize("text", ["", "a", "AAAA", "nonsense", "é", "A" * (MAX_LENGTH + 1), "MTIz" * 10])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="malformed") as caught:
        read_cursor(text, 1)
    assert (caught.value.reason, caught.value.field) == ("BAD_CURSOR", "cursor")


@pytest.mark.parametrize(
    "last",
    [TryKey("a", 2**62, 2**63, "b", 1), TryKey("a", 2**64, 1, "b", 1), TryKey("a\0", 1, 1, "b", 1)],
)
def test_a_forged_cursor_whose_values_no_database_takes_is_refused(last: TryKey) -> None:
    writer = ForgingWriter()
    writer.values(1, 7, 0, 0, 0, 1, last.request_id, last.epoch, last.ordinal, last.job_id, last.number)
    data = bytes(writer.data)
    text = urlsafe_b64encode(data + crc32(data).to_bytes(4, "big")).decode()
    with pytest.raises(InvalidArgumentError, match="malformed"):
        read_cursor(text, 7)


class ForgingWriter:
    """Writes numbers and texts as the server does, but without its limits."""

    def __init__(self) -> None:
        self.data = bytearray()

    def values(self, *values: int | str) -> None:
        for value in values:
            rest = len(value.encode()) if isinstance(value, str) else value
            while rest > 0x7F:
                self.data.append(rest & 0x7F | 0x80)
                rest >>= 7
            self.data.append(rest)
            if isinstance(value, str):
                self.data += value.encode()


def test_the_cursor_of_another_request_is_refused() -> None:
    text = Cursor(scope_of("request", "one"), position(w1=1)).text()
    with pytest.raises(InvalidArgumentError, match="another request or filter"):
        read_cursor(text, scope_of("request", "other"))


def test_a_cursor_is_short_enough_for_a_header_although_there_are_many_writers() -> None:
    writers = {
        number: WriterPosition(MAX_BATCH if number % 50 == 0 else 100_000, 0xFFFF, updated_at=number)
        for number in range(1, 4 * MAX_WRITERS)
    }
    many = Position(writers, newest=MAX_WRITER, read_at=2**52)
    text = Cursor(2**32 - 1, many, many, TryKey("9" * 20, 9, 2**62, "abcd", 9)).text()
    assert len(text) <= MAX_LENGTH
    read = read_cursor(text, 2**32 - 1).position
    assert read is not None
    assert set(read.writers) == set(sorted(writers)[-MAX_WRITERS:]), "those that committed last"
