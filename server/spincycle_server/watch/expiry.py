"""Whether a position from a cursor can still be used."""

from __future__ import annotations

from spincycle_server.store.positions import MAX_AGE, Position

_MARGIN = 3_600_000_000
"""Microseconds by which a transaction may end later than its time in the row of its writer says."""


def usable(position: Position, now: Position) -> Position | None:
    """Returns a position from a cursor, completed; None if it is too old or from another database.

    Args:
        position: The position.
        now: The position now.
    """
    age = now.read_at - position.read_at
    if not -_MARGIN <= age <= MAX_AGE or position.newest > now.newest:
        return None
    writers = {}
    for number, writer in now.writers.items():
        known = position.writers.get(number)
        if known is None and number <= position.newest:
            # The cursor has no room for writers that were idle for long.
            if writer.updated_at > position.read_at - _MARGIN:
                return None
            writers[number] = writer
        elif known is not None:
            if known.digest != writer.digest or known.batch > writer.batch:
                return None
            writers[number] = known._replace(prunes=writer.prunes)
    return Position(writers, position.newest, position.read_at)
