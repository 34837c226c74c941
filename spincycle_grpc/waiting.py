"""What the waits of both clients have in common: how often they look, what they tell, when they end."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from spincycle_grpc.backoff import Backoff
from spincycle_grpc.errors import DeadlineExceededError
from spincycle_grpc.retries import checked_deadline
from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.request_pb2 import Request

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
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, growth=_PAUSE_GROWTH, jitter=0)
        self._has_seen = False

    @contextlib.contextmanager
    def look(self, longest: float) -> Iterator[float]:
        """Gives a look the seconds that it may take: no more than are left of the wait.

        Raises:
            DeadlineExceededError: The look took what was left of a wait whose request had been seen before.
                Reason: WAITED_TOO_LONG.
        """
        seconds = min(max(self._left(), _SHORTEST_CALL), longest)
        try:
            yield seconds
        except DeadlineExceededError as error:
            if not self._has_seen or seconds >= longest:
                raise
            raise self._too_long() from error
        self._has_seen = True

    def next_pause(self) -> float:
        """Returns the seconds before the next look: few at first, for requests that are soon done.

        Raises:
            DeadlineExceededError: There is no time left for another look. Reason: WAITED_TOO_LONG.
        """
        left = self._left()
        if left <= 0:
            raise self._too_long()
        return self._backoff.next(at_most=left)

    def _left(self) -> float:
        return self._end - time.monotonic()

    def _too_long(self) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"request {self._request_id} has not ended within {self._deadline:g} seconds; it goes on",
            reason="WAITED_TOO_LONG",
            request_id=self._request_id,
        )


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
