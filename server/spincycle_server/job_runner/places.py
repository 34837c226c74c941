"""Which Request Manager gets a free place of a runner. A place is room for one more chain.

Two Request Managers that send a chain for the same place cost one of them two writes. So each free place is
promised to one of them. A promise ends when a chain arrives, from whomever, or after half a second. So a
place that a Request Manager does not use goes to another one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

PROMISED = 0.5
"""Seconds after which a promised place that no chain has taken is offered again."""

MAX_WANTED = 1000
"""The maximum number of places that one Request Manager can want at a time."""


@dataclass(slots=True, eq=False)
class Turn:
    """A Request Manager that waits for places.

    Attributes:
        wanted: How many more it wants.
        offered: How many were dealt to it, and were not sent yet.
    """

    wanted: int
    offered: int = 0


@dataclass(slots=True)
class _Promise:
    places: int
    ends_at: float


class Places:
    """The promised places, and the Request Managers that wait for places. It has no clock: `now` is any.

    Attributes:
        wanted: How many places all of them want.
    """

    def __init__(self) -> None:
        self._turns: deque[Turn] = deque()
        self._promises: deque[_Promise] = deque()
        self._promised = 0
        self.wanted = 0

    def join(self, wanted: int) -> Turn:
        """Adds a Request Manager that waits. It is the last in turn."""
        turn = Turn(min(max(wanted, 1), MAX_WANTED))
        self.wanted += turn.wanted
        self._turns.append(turn)
        return turn

    def leave(self, turn: Turn) -> None:
        """Removes a Request Manager. What was dealt to it and not sent is free again."""
        if turn.wanted:
            self._turns.remove(turn)
            self.wanted -= turn.wanted
        self._use(turn.offered)
        turn.wanted = turn.offered = 0

    def promise(self, places: int, now: float) -> None:
        """Promises places."""
        self._end_promises(now)
        if places > 0:
            self._promises.append(_Promise(places, now + PROMISED))
            self._promised += places

    def taken(self) -> None:
        """Counts a chain that has arrived: it has used the oldest promise."""
        self._use(1)

    def deal(self, room: int, now: float) -> list[Turn]:
        """Deals the places that are promised to nobody, one at a time and in turn, to those who want some.

        Args:
            room: How many places are free, promised or not.
            now: The time, in seconds.

        Returns:
            The turns that got places.
        """
        self._end_promises(now)
        dealt: dict[Turn, None] = {}
        places = min(room - self._promised, self.wanted)
        for _ in range(places):
            turn = self._turns.popleft()
            turn.wanted -= 1
            turn.offered += 1
            dealt[turn] = None
            if turn.wanted:
                self._turns.append(turn)
        if places > 0:
            self.wanted -= places
            self.promise(places, now)
        return list(dealt)

    @property
    def next_end(self) -> float | None:
        """When the oldest promise ends while somebody wants places; None if there is nothing to wait for."""
        return self._promises[0].ends_at if self._promises and self._turns else None

    def _end_promises(self, now: float) -> None:
        while self._promises and self._promises[0].ends_at <= now:
            self._promised -= self._promises.popleft().places

    def _use(self, places: int) -> None:
        """Takes places from the oldest promises, as far as there are any."""
        while places and self._promises:
            oldest = self._promises[0]
            used = min(places, oldest.places)
            oldest.places -= used
            self._promised -= used
            places -= used
            if not oldest.places:
                self._promises.popleft()
