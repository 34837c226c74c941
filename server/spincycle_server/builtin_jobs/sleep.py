"""The job that waits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from spincycle_grpc.jobs import Job, Return
from spincycle_grpc.state import State

_NANOSECONDS_IN_MILLISECOND = 1_000_000
_LONGEST = (1 << 63) - 1


@dataclass
class Sleep(Job):
    """Waits, then completes. The job arg `duration` is in milliseconds, as text or a number.

    Attributes:
        duration: How long to wait, in nanoseconds.
    """

    duration: int = 0
    _is_stopped: bool = field(default=False, init=False, repr=False, compare=False)
    _ended: asyncio.Future[Return] | None = field(default=None, init=False, repr=False, compare=False)

    def create(self, job_args: dict[str, Any]) -> None:
        """Reads `duration`.

        Raises:
            ValueError: `duration` is missing, or is not a whole number of milliseconds, or exceeds 64 bits in
                nanoseconds.
        """
        if "duration" not in job_args:
            raise ValueError("job arg duration is missing: give the milliseconds to sleep")
        given = job_args["duration"]
        milliseconds = _whole_number(given)
        if not 0 <= milliseconds <= _LONGEST // _NANOSECONDS_IN_MILLISECOND:
            raise ValueError(f"job arg duration must be a whole number of milliseconds, not {given!r:.60}")
        self.duration = milliseconds * _NANOSECONDS_IN_MILLISECOND

    async def run(self, job_data: dict[str, Any]) -> Return:
        """Waits for the duration, or for `stop`."""
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        timer = loop.call_later(self.duration / 1e9, self._end, Return())
        try:
            if self._is_stopped:
                self._end(Return(State.STOPPED))
            return await self._ended
        finally:
            timer.cancel()

    async def stop(self) -> None:
        """Ends the wait."""
        self._is_stopped = True
        self._end(Return(State.STOPPED))

    def _end(self, returned: Return) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(returned)

    def status(self) -> str:
        """Returns the same text as the original."""
        return "sleeping"


def _whole_number(given: object) -> int:
    """Returns the integer that a job arg stands for, or -1 if it is not an integer."""
    if isinstance(given, str) and given.isascii() and given.isdecimal() and len(given) <= 20:
        return int(given)
    if isinstance(given, float) and given.is_integer():
        return int(given)
    return given if isinstance(given, int) and not isinstance(given, bool) else -1
