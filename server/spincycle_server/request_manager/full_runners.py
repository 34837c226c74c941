"""The runners that have refused a chain because they were full, and how many chains each may get now.

A refused chain costs two writes. So a full runner gets only as many chains as have ended there since its
refusal. Some of these ends may have been reported to another Request Manager. So the runner is also probed
every half second: it gets one more chain, then two more, then four more, until it refuses again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

PROBE = 0.5
"""Seconds between two probes of a full runner."""

MAX_PROBED = 1000
"""A runner whose next probe would have more chains than this is no longer treated as full."""


@dataclass(slots=True)
class _Room:
    """What one full runner may get.

    Attributes:
        chains: How many chains it may get now.
        learned: How many places were learned since it is full, probes not counted.
        next_probe: How many chains its next probe has.
        probe_at: When that probe is due.
    """

    chains: int = 0
    learned: int = 0
    next_probe: int = 1
    probe_at: float = 0.0


class FullRunners:
    """How many chains each full runner may get, by runner id."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}

    def refused(self, runner_id: str, learned: int | None = None) -> None:
        """Marks a runner as full, because it has refused a chain.

        Args:
            runner_id: The runner.
            learned: What `learned` returned when the chain was sent. The places that were learned since then
                remain. None: no place remains.
        """
        room = self._rooms.setdefault(runner_id, _Room())
        since = 0 if learned is None else room.learned - learned
        room.chains = max(0, min(room.chains, since))
        room.next_probe = 1
        room.probe_at = time.monotonic() + PROBE

    def learned(self, runner_id: str) -> int:
        """Returns how many places of a runner were learned since it is full."""
        room = self._rooms.get(runner_id)
        return 0 if room is None else room.learned

    def __contains__(self, runner_id: object) -> bool:
        """Whether a runner has refused a chain, and no probe has shown since that it is not full."""
        return runner_id in self._rooms

    def add_places(self, runner_id: str, places: int) -> bool:
        """Gives a full runner room for more chains. Returns whether it was full."""
        room = self._rooms.get(runner_id)
        if room is None:
            return False
        room.chains += places
        room.learned += places
        return True

    def probe(self, runner_id: str) -> bool:
        """Returns whether a runner may get a chain now. Adds the chains of a probe that is due."""
        room = self._rooms.get(runner_id)
        if room is None:
            return True
        if time.monotonic() >= room.probe_at:
            room.chains += room.next_probe
            room.next_probe *= 2
            room.probe_at = time.monotonic() + PROBE
            if room.next_probe > MAX_PROBED:
                del self._rooms[runner_id]
        return room.chains > 0

    def chain_given(self, runner_id: str) -> None:
        """Counts a chain that a runner gets."""
        if (room := self._rooms.get(runner_id)) is not None:
            room.chains -= 1

    def chain_not_given(self, runner_id: str) -> None:
        """Takes back `chain_given`: the runner did not get the chain, so it still has the place."""
        if (room := self._rooms.get(runner_id)) is not None:
            room.chains += 1

    def keep(self, runner_ids: set[str]) -> None:
        """Forgets all runners except these."""
        self._rooms = {runner_id: room for runner_id, room in self._rooms.items() if runner_id in runner_ids}
