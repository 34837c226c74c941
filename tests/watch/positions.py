"""Positions for tests."""

from __future__ import annotations

from spincycle_server.store.positions import Position, WriterPosition

NOW = 1_800_000_000_000_000
HOUR = 3_600_000_000


def position(newest: int = 9, read_at: int = NOW, *, updated_at: int = NOW, **batches: int) -> Position:
    """Returns a position: w3=7 is batch 7 of writer 3. The digest of a writer is its number."""
    numbers = {int(name.removeprefix("w")): batch for name, batch in batches.items()}
    writers = {number: WriterPosition(batch, number, updated_at) for number, batch in numbers.items()}
    return Position(writers, newest, read_at)
