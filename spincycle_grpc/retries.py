"""The deadline of a client's call, and its retries."""

from __future__ import annotations

import time

import grpc

from spincycle_grpc.backoff import Backoff
from spincycle_grpc.errors import InvalidArgumentError

DEFAULT_DEADLINE = 30.0
"""Seconds that a call may take by default, including its retries."""

MAX_TRIES = 5
"""The maximum number of tries of a call that is safe to retry. They take about a second."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
_LONGEST_DEADLINE = 365 * 86400.0


class Tries:
    """The tries of one call. Only UNAVAILABLE is retried.

    Args:
        deadline: Seconds for all tries together.
        limit: The maximum number of tries.
    """

    def __init__(self, deadline: float, limit: float) -> None:
        self._end = time.monotonic() + deadline
        self._limit = limit
        self._count = 0
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)

    def begin(self) -> float:
        """Counts a try. Returns the seconds that it may take."""
        self._count += 1
        return max(self._end - time.monotonic(), 0.001)

    def wait_after(self, error: grpc.RpcError) -> float | None:
        """Returns the seconds to wait after a failed try. None: do not try again."""
        if error.code() is not grpc.StatusCode.UNAVAILABLE or self._count >= self._limit:
            return None
        wait = self._backoff.next()
        return wait if time.monotonic() + wait < self._end else None


class PageTime:
    """The time of a call whose result comes in pages: all pages together have one deadline.

    Args:
        deadline: Seconds for all pages together.
        started: When the call started, by the monotonic clock. None: now.

    Raises:
        InvalidArgumentError: The deadline is not positive. Reason: BAD_DEADLINE.
    """

    def __init__(self, deadline: float, started: float | None = None) -> None:
        begin = time.monotonic() if started is None else started
        self._end = begin + checked_deadline(deadline)

    def left(self) -> float:
        """Returns the seconds that the next page may take."""
        return max(self._end - time.monotonic(), 0.001)


def checked_deadline(deadline: float) -> float:
    """Returns a deadline that gRPC accepts: at most a year.

    Raises:
        InvalidArgumentError: The deadline is not a positive number. Reason: BAD_DEADLINE.
    """
    if not deadline > 0:
        raise InvalidArgumentError(
            f"the deadline must be a positive number of seconds, not {deadline}", reason="BAD_DEADLINE"
        )
    return min(deadline, _LONGEST_DEADLINE)
