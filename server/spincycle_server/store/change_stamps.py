"""Stamps: which transaction last changed a row.

A stamp is a number of a writer and a number of its batch in one integer. The stamps of one writer rise with
its commits.
"""

from __future__ import annotations

_BATCH_BITS = 36

MAX_BATCH = 2**_BATCH_BITS - 1
"""The largest number of a batch: at 1,000 batches a second, a writer reaches it after two years."""

MAX_WRITER = 2 ** (63 - _BATCH_BITS) - 1
"""The largest number of a writer. Each start of a Request Manager uses two."""


def stamp_of(writer: int, batch: int) -> int:
    """Returns the stamp of a batch.

    Args:
        writer: The number of the writer, from 1 to MAX_WRITER.
        batch: The number of its batch, from 0 to MAX_BATCH.

    Raises:
        OverflowError: A number is out of bounds.
    """
    if not (0 < writer <= MAX_WRITER and 0 <= batch <= MAX_BATCH):
        raise OverflowError(f"batch {batch} of writer {writer} has no stamp")
    return writer << _BATCH_BITS | batch


def batch_of(stamp: int) -> tuple[int, int]:
    """Returns the numbers of the writer and of the batch."""
    return stamp >> _BATCH_BITS, stamp & MAX_BATCH
