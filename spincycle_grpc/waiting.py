"""The parts of waiting for the end of a request that both clients share."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from spincycle_grpc.backoff import Backoff
from spincycle_grpc.errors import DeadlineExceededError, SpinCycleError, Status
from spincycle_grpc.retries import checked_deadline
from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.request_pb2 import Request

_FIRST_PAUSE = 0.05
_PAUSE_GROWTH = 1.5
_LONGEST_PAUSE = 0.5
_SHORTEST_CALL = 0.001
_NO_ROOM = "TOO_MANY_WATCHERS"


def is_final(request: Request) -> bool:
    """Whether a request is in a final state."""
    return request.state in FINAL_STATES


def is_polled_instead(error: SpinCycleError) -> bool:
    """Whether a wait polls the server after this error of a watch: it is older, or has no room."""
    return error.status is Status.UNIMPLEMENTED or error.reason == _NO_ROOM


class PollSchedule:
    """The deadline of one wait, and the pauses between its polls. The wait starts with the constructor.

    Args:
        request_id: The id of the request.
        deadline: Seconds to wait. None: no limit.

    Raises:
        InvalidArgumentError: The deadline is not positive.

    Attributes:
        request_id: The id of the request.
    """

    def __init__(self, request_id: str, deadline: float | None) -> None:
        self.request_id = request_id
        self._deadline = deadline
        self._end = math.inf if deadline is None else time.monotonic() + checked_deadline(deadline)
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, growth=_PAUSE_GROWTH, jitter=0)
        self._was_seen = False

    @contextlib.contextmanager
    def poll(self, longest: float) -> Iterator[float]:
        """Yields the seconds that one poll may take.

        Args:
            longest: The maximum number of seconds for the poll, even if more time is left to wait.

        Raises:
            DeadlineExceededError: The wait's deadline passed during the poll, and an earlier poll has shown
                that the request exists. Reason: WAITED_TOO_LONG.
        """
        seconds = min(max(self._left(), _SHORTEST_CALL), longest)
        try:
            yield seconds
        except DeadlineExceededError as error:
            if not self._was_seen or seconds >= longest:
                raise
            raise self._too_long() from error
        self._was_seen = True

    def next_pause(self) -> float:
        """Returns the seconds until the next poll. Pauses grow, so that short requests are seen to end soon.

        Raises:
            DeadlineExceededError: The wait's deadline has passed. Reason: WAITED_TOO_LONG.
        """
        left = self._left()
        if left <= 0:
            raise self._too_long()
        return self._backoff.next(at_most=left)

    def _left(self) -> float:
        return self._end - time.monotonic()

    def _too_long(self) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"request {self.request_id} has not ended within {self._deadline:g} seconds: "
            "it continues, so wait again or stop it",
            reason="WAITED_TOO_LONG",
            request_id=self.request_id,
        )


class ChangeNotifier:
    """Calls a function when a request has changed.

    Args:
        on_change: The function. None: no call.
    """

    def __init__(self, on_change: Callable[[Request], None] | None) -> None:
        self._on_change = on_change
        self._seen: tuple[int, int, int] | None = None

    def update(self, request: Request) -> None:
        """Calls the function if the state or the number of jobs differs from the last update."""
        seen = (request.state, request.finished_jobs, request.total_jobs)
        if seen != self._seen:
            self._seen = seen
            if self._on_change is not None:
                self._on_change(request)
