"""What the waits of both clients have in common: how often they look, what they tell, when they end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from spincycle_grpc.errors import DeadlineExceededError
from spincycle_grpc.retries import checked_deadline
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_pb2 import Request

FINAL_STATES: frozenset[int] = frozenset({State.COMPLETE, State.FAIL, State.STOPPED})
"""The states that a request can end in."""

_FIRST_PAUSE = 0.05
_PAUSE_GROWTH = 1.5
_LONGEST_PAUSE = 0.5
_SHORTEST_CALL = 0.001


def is_final(request: Request) -> bool:
    """Whether a request has ended."""
    return request.state in FINAL_STATES


class Wait:
    """One wait for a request, by the clock. It begins when it is made.

    Args:
        request_id: The request.
        deadline: Seconds to wait; None: however long it takes.

    Raises:
        InvalidArgumentError: The deadline is not positive.
    """

    def __init__(self, request_id: str, deadline: float | None) -> None:
        self._request_id = request_id
        self._deadline = deadline
        self._end = math.inf if deadline is None else time.monotonic() + checked_deadline(deadline)
        self._pause = _FIRST_PAUSE

    def call_deadline(self, longest: float) -> float:
        """Returns the seconds that a look may take: no more than are left of the wait."""
        return min(max(self._end - time.monotonic(), _SHORTEST_CALL), longest)

    def next_pause(self) -> float:
        """Returns the seconds before the next look: few at first, for requests that are soon done.

        Raises:
            DeadlineExceededError: There is no time left for another look. Reason: WAITED_TOO_LONG.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineExceededError(
                f"request {self._request_id} has not ended within {self._deadline:g} seconds; it goes on",
                reason="WAITED_TOO_LONG",
                request_id=self._request_id,
            )
        pause = min(self._pause, left)
        self._pause = min(self._pause * _PAUSE_GROWTH, _LONGEST_PAUSE)
        return pause


class Changes:
    """Tells of a request when it is another than before.

    Args:
        tell: Is called with the request; None: nobody is told.
    """

    def __init__(self, tell: Callable[[Request], None] | None) -> None:
        self._tell = tell
        self._seen: tuple[int, int, int] | None = None

    def see(self, request: Request) -> None:
        """Tells of a request if its state or its number of jobs that are finished is new."""
        seen = (request.state, request.finished_jobs, request.total_jobs)
        if seen != self._seen:
            self._seen = seen
            if self._tell is not None:
                self._tell(request)
