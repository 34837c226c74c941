"""The output of finished tries, read from any offset."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.output import MIDDLE, cut_output, find_cut, first_of_middle
from spincycle_grpc.v1.output_pb2 import (
    OUTPUT_GAP_REASON_TRUNCATED,
    OUTPUT_STREAM_STDERR,
    OUTPUT_STREAM_STDOUT,
    OutputEnd,
    OutputGap,
)
from spincycle_server.request_manager import stored_output as module
from spincycle_server.request_manager.stored_output import OutputPiece, stored_output
from spincycle_server.store import Store
from spincycle_server.store.outputs import FinishedTry, TryKey

KEY = TryKey("r", "aaaa", 1)
OUT = OUTPUT_STREAM_STDOUT


class StoredText:
    """A store that has one text."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        first = first_of_middle(len(data))
        cut = find_cut(data[first : first + MIDDLE], first, len(data))
        self.finished = FinishedTry(KEY, 1, OutputEnd(), {OUT: len(data)}, {OUT: cut})

    async def stored_piece(self, key: TryKey, stream: int, position: int, size: int) -> bytes:
        assert (key, stream) == (KEY, OUT)
        assert position >= 0
        return self.data[position : position + size]


async def read(data: bytes, offset: int) -> list[tuple[OutputPiece, int]]:
    """Returns all pieces of stored output from an offset."""
    stored = StoredText(data)
    store: Store = stored  # type: ignore[assignment]
    return [piece async for piece in stored_output(store, stored.finished, OUT, offset)]


def check(pieces: list[tuple[OutputPiece, int]], text: bytes, offset: int) -> None:
    """Checks that the pieces are the text from an offset on, without what a gap names."""
    at = None
    for piece, end in pieces:
        if isinstance(piece, OutputGap):
            assert piece.reason == OUTPUT_GAP_REASON_TRUNCATED
            assert at in (None, getattr(piece, "from"))
            at = piece.to
        else:
            assert at in (None, piece.offset)
            data = piece.text.encode()
            assert text[piece.offset : piece.offset + len(data)] == data
            at = piece.offset + len(data)
        assert end == at
        if piece is pieces[0][0] and not isinstance(piece, OutputGap):
            assert offset - 3 <= piece.offset <= offset
    assert at in (None, len(text))


@given(st.text(alphabet="aé€🦀\n", max_size=300), st.integers(100, 400), st.data())
async def test_every_offset_continues_where_it_points(text: str, limit: int, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(text.encode())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", 37)
        check(await read(cut_output(text, limit).encode(), offset), text.encode(), offset)


async def test_an_offset_beyond_the_end_is_refused() -> None:
    text = "x" * 1000
    for offset in (1001, 2**64 - 1):
        with pytest.raises(InvalidArgumentError) as raised:
            await read(cut_output(text, 300).encode(), offset)
        assert raised.value.reason == "BAD_OFFSET"
    assert await read(cut_output(text, 300).encode(), 1000) == []


async def test_stored_bytes_that_are_not_utf8_are_replaced_and_counted_as_stored() -> None:
    ((piece, end),) = await read(b"a\xff\xe2\x82", 0)
    assert not isinstance(piece, OutputGap)
    assert (piece.text, end) == ("a\ufffd\ufffd", 4)
    assert piece.stream == OUT != OUTPUT_STREAM_STDERR
