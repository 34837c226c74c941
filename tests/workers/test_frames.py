"""Messages between workers and supervisor arrive whole, however the stream is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_server.workers.frames import MAX_FRAME, FrameReader, Kind, encode

MESSAGES = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=50)), max_size=8)


@given(MESSAGES, st.integers(1, 20))
def test_messages_arrive_whole_in_pieces_of_any_size(messages: list[tuple[Kind, bytes]], size: int) -> None:
    stream = b"".join(encode(kind, data) for kind, data in messages)
    reader = FrameReader()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [frame for piece in pieces for frame in reader.feed(piece)] == messages


@pytest.mark.parametrize(
    "stream", [(MAX_FRAME + 1).to_bytes(4, "big") + b"\1", b"\0\0\0\0\0", b"\0\0\0\0\xff"]
)
def test_what_is_no_message_is_refused(stream: bytes) -> None:
    with pytest.raises(ValueError, match=r"too large|is not a valid Kind"):
        list(FrameReader().feed(stream))
