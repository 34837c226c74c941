"""The runners that have refused a chain because they were full, and how many chains each may get now.

A refused chain costs two writes. So a full runner gets only as many chains as it has places. Its reports say
that chains have ended there; a runner that reports to another Request Manager offers places on a stream. A
place may be lost, for example if a Request Manager dies. So the runner is also probed every half second: it
gets one more chain, then two more, then four more, until it refuses again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

OFFER_LASTS = 0.5
"""Seconds for which a runner promises a place that it offers: `PROMISED` of job_runner/places.py."""

PROBE = 0.5
"""Seconds between two probes of a full runner."""

MAX_PROBED = 1000
"""A runner whose next probe would have more chains than this is no longer treated as full."""


@dataclass(slots=True)
class _Room:
    """What one full runner may get.

    Attributes:
        chains: How many chains it may get now.
        spare: How many of these places are promised to nobody.
        learned: How many places were learned since it is full, probes not counted.
        next_probe: How many chains its next probe has.
        probe_at: When that probe is due.
        ends_at: When `chains` ends, because these places were offered, and others get them then.
    """

    chains: int = 0
    spare: int = 0
    learned: int = 0
    next_probe: int = 1
    probe_at: float = 0.0
    ends_at: float = math.inf

    def look(self) -> None:
        """Drops places that were offered and not used in time."""
        if time.monotonic() >= self.ends_at:
            self.chains = min(self.chains, 0)
            self.spare = 0
            self.ends_at = math.inf


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
        room.spare = min(room.spare, room.chains)
        room.next_probe = 1
        room.probe_at = time.monotonic() + PROBE

    def learned(self, runner_id: str) -> int:
        """Returns how many places of a runner were learned since it is full."""
        room = self._rooms.get(runner_id)
        return 0 if room is None else room.learned

    def __contains__(self, runner_id: object) -> bool:
        """Whether a runner has refused a chain, and no probe has shown since that it is not full."""
        return runner_id in self._rooms

    def __iter__(self) -> Iterator[str]:
        """Yields the ids of the full runners."""
        return iter(self._rooms)

    def room(self, runner_id: str) -> int:
        """Returns how many chains a full runner may get now, without a probe that is due."""
        room = self._rooms.get(runner_id)
        if room is None:
            return 0
        room.look()
        return max(0, room.chains)

    def add_places(self, runner_id: str, places: int, *, spare: int = 0, lasts: float = math.inf) -> bool:
        """Gives a full runner room for more chains. Returns whether it was full.

        Args:
            runner_id: The runner.
            places: How many more chains it may get.
            spare: How many of these places are promised to nobody.
            lasts: Seconds after which others may get them.
        """
        room = self._rooms.get(runner_id)
        if room is None:
            return False
        room.look()
        room.ends_at = time.monotonic() + lasts
        room.chains += places
        room.spare += spare
        room.learned += places
        return True

    def drop_spare(self, runner_id: str) -> None:
        """Drops the places of a full runner that are promised to nobody, because others want and get them."""
        if (room := self._rooms.get(runner_id)) is not None:
            room.chains -= room.spare
            room.spare = 0

    def probe(self, runner_id: str) -> bool:
        """Returns whether a runner may get a chain now. Adds the chains of a probe that is due."""
        room = self._rooms.get(runner_id)
        if room is None:
            return True
        room.look()
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
            room.spare = max(0, min(room.spare, room.chains))

    def chain_not_given(self, runner_id: str) -> None:
        """Takes back `chain_given`: the runner did not get the chain, so it still has the place."""
        if (room := self._rooms.get(runner_id)) is not None:
            room.chains += 1

    def keep(self, runner_ids: set[str]) -> None:
        """Forgets all runners except these."""
        self._rooms = {runner_id: room for runner_id, room in self._rooms.items() if runner_id in runner_ids}
