"""The output of finished tries, from the job log."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from spincycle_grpc.output import PIECE, OutputCut, bad_offset
from spincycle_grpc.v1.output_pb2 import (
    OUTPUT_GAP_REASON_TRUNCATED,
    OutputGap,
    OutputStream,
    OutputText,
)

if TYPE_CHECKING:
    from spincycle_server.store import Store
    from spincycle_server.store.outputs import FinishedTry

OutputPiece: TypeAlias = OutputText | OutputGap

_LONGEST_CHARACTER = 4


async def stored_output(
    store: Store, finished: FinishedTry, stream: OutputStream.ValueType, offset: int
) -> AsyncIterator[tuple[OutputPiece, int]]:
    """Yields what the job log has of a stream: pieces and gaps, each with the offset after it.

    Args:
        store: Has the job log.
        finished: The try.
        stream: The stream.
        offset: Where to begin, in bytes of all output of the try to this stream.

    Raises:
        InvalidArgumentError: The offset is beyond the end. Reason: BAD_OFFSET.
        NotFoundError: The entry was pruned meanwhile.
    """
    size, cut = finished.sizes[stream], finished.cuts[stream]
    if cut is None:
        cut = OutputCut(size, 0, 0)
    tail = cut.position + cut.size
    shift = cut.size - cut.note  # from a position in the tail to an offset
    if offset > size + shift:
        raise bad_offset(offset, size + shift)
    if offset < cut.position:
        async for piece, end in _texts(store, finished, stream, _Span(0, offset, cut.position)):
            yield piece, end
        offset = cut.position
    if offset < tail:
        gap = OutputGap(stream=stream, to=tail, reason=OUTPUT_GAP_REASON_TRUNCATED, **{"from": offset})
        yield gap, tail
        offset = tail
    async for piece, end in _texts(store, finished, stream, _Span(tail - shift, offset - shift, size)):
        piece.offset += shift
        yield piece, end + shift


class _Span(NamedTuple):
    """A part of what is stored: where it begins, where reading begins, and where both end."""

    start: int
    position: int
    end: int


async def _texts(
    store: Store, finished: FinishedTry, stream: OutputStream.ValueType, span: _Span
) -> AsyncIterator[tuple[OutputText, int]]:
    """Yields pieces of stored text, which are whole characters, each with the position after it."""
    position = span.position
    while position < span.end:
        before = min(_LONGEST_CHARACTER - 1, position - span.start) if position == span.position else 0
        data = await store.stored_piece(
            finished.key, stream, position - before, before + min(PIECE, span.end - position)
        )
        while before and data[before] & 0xC0 == 0x80:  # inside a character
            before -= 1
            position -= 1
        text, used = codecs.utf_8_decode(data[before:], "replace", position + len(data) >= span.end)
        if not used:  # The entry was changed by hand.
            return
        yield OutputText(stream=stream, offset=position, text=text), position + used
        position += used
