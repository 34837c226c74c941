"""The streams on which a runner offers its free places to Request Managers that do not get its reports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable

from spincycle_grpc.errors import ResourceExhaustedError
from spincycle_server.job_runner.places import Places, Turn
from spincycle_server.telemetry.limits import CAPACITY_STREAMS, LimitUse

MAX_STREAMS = 1000
"""The maximum number of open streams. Each process of a Request Manager opens one at a time."""


class CapacityStreams:
    """The open streams. All methods belong to the event loop.

    Args:
        room: Returns how many more chains the runner takes.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self._places = Places()
        self._open: dict[Turn, asyncio.Event] = {}
        self._timer: asyncio.TimerHandle | None = None

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limit and the number of open streams."""
        return (LimitUse(CAPACITY_STREAMS, MAX_STREAMS, len(self._open)),)

    @property
    def wanted(self) -> int:
        """How many places the Request Managers of all streams want."""
        return self._places.wanted

    async def watch(self, wanted: int) -> AsyncGenerator[int, None]:
        """Yields how many places are offered to a Request Manager, until it has as many as it wants.

        Places that become free while the last answer is sent are in one answer.

        Raises:
            ResourceExhaustedError: There are too many streams. Reason: TOO_MANY_STREAMS.
        """
        if len(self._open) >= MAX_STREAMS:
            raise ResourceExhaustedError(
                f"the limit of {MAX_STREAMS} streams of WatchCapacity is reached: try again after a pause",
                reason="TOO_MANY_STREAMS",
            )
        turn, news = self._places.join(wanted), asyncio.Event()
        self._open[turn] = news
        self.offer()
        try:
            while turn.wanted or turn.offered:
                await news.wait()
                news.clear()
                offered, turn.offered = turn.offered, 0
                yield offered
        finally:
            del self._open[turn]
            self._places.leave(turn)
            self.offer()

    def keep(self, places: int) -> None:
        """Keeps free places, and those of chains that are about to leave, for the receiver of the reports."""
        self._places.promise(places, time.monotonic())

    def taken(self) -> None:
        """Counts a chain that has arrived."""
        self._places.taken()

    def offer(self) -> None:
        """Offers free places. It is called when a chain has left the runner, and when promises end."""
        if not self._places.wanted:
            return
        for turn in self._places.deal(self._room(), time.monotonic()):
            self._open[turn].set()
        if self._timer is None and (end := self._places.next_end) is not None:
            self._timer = asyncio.get_running_loop().call_later(end - time.monotonic(), self._offer_later)

    def _offer_later(self) -> None:
        self._timer = None
        self.offer()
