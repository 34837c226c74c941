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
    chains: int
    next_probe: int
    probe_at: float


class FullRunners:
    """How many chains each full runner may get, by runner id."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}

    def refused(self, runner_id: str) -> None:
        """Marks a runner as full, because it has refused a chain."""
        self._rooms[runner_id] = _Room(chains=0, next_probe=1, probe_at=time.monotonic() + PROBE)

    def __contains__(self, runner_id: object) -> bool:
        """Whether a runner has refused a chain, and no probe has shown since that it is not full."""
        return runner_id in self._rooms

    def chains_ended(self, runner_id: str, chains: int) -> bool:
        """Gives a full runner room for as many chains as have ended there. Returns whether it was full."""
        room = self._rooms.get(runner_id)
        if room is None:
            return False
        room.chains += chains
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

    def keep(self, runner_ids: set[str]) -> None:
        """Forgets all runners except these."""
        self._rooms = {runner_id: room for runner_id, room in self._rooms.items() if runner_id in runner_ids}
