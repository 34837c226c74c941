"""Runners that have refused a chain since they were full, and how many each may be given again.

A chain that is refused costs two writes, so a full runner is given what it is known to have room for:
as many chains as have ended there since. What ended may have been reported to another Request
Manager, so besides it is tried with a chain now and then, then two, then four, until it refuses.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

PROBE = 0.5
"""Seconds between tries whether a full runner has room."""

MAX_PROBED = 1000
"""A runner that took as many chains at once is not full."""


@dataclass(slots=True)
class _Full:
    room: int
    probed: int
    probe_at: float


class FullRunners:
    """The runners that are full, by their ids."""

    def __init__(self) -> None:
        self._full: dict[str, _Full] = {}

    def refused(self, runner_id: str) -> None:
        """Tells that a runner has refused a chain."""
        self._full[runner_id] = _Full(0, 1, time.monotonic() + PROBE)

    def is_known(self, runner_id: str) -> bool:
        """Whether the runner has refused a chain, and nobody has found since that it is not full."""
        return runner_id in self._full

    def freed(self, runner_id: str, chains: int) -> bool:
        """Tells that chains of a runner have ended. Returns whether it was full."""
        full = self._full.get(runner_id)
        if full is None:
            return False
        full.room += chains
        return True

    def has_room(self, runner_id: str) -> bool:
        """Whether the runner may be given a chain now."""
        full = self._full.get(runner_id)
        if full is None:
            return True
        if time.monotonic() >= full.probe_at:
            full.room += full.probed
            full.probed *= 2
            full.probe_at = time.monotonic() + PROBE
            if full.probed > MAX_PROBED:
                del self._full[runner_id]
        return full.room > 0

    def given(self, runner_id: str) -> None:
        """Tells that a runner is given a chain."""
        if (full := self._full.get(runner_id)) is not None:
            full.room -= 1

    def keep(self, runner_ids: set[str]) -> None:
        """Forgets all other runners."""
        self._full = {runner_id: full for runner_id, full in self._full.items() if runner_id in runner_ids}
