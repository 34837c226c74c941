"""Streams that both clients open again when they break: where they continue, and for how long."""

from __future__ import annotations

import math
import time
from typing import Generic, TypeVar

from spincycle_grpc.backoff import Backoff
from spincycle_grpc.errors import DeadlineExceededError, SpinCycleError, Status
from spincycle_grpc.retries import checked_deadline
from spincycle_grpc.v1.request_manager_pb2 import (
    FollowOutputRequest,
    FollowOutputResponse,
    WatchRequest,
    WatchResponse,
)

_Response = TypeVar("_Response", WatchResponse, FollowOutputResponse)

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_SHORTEST_STREAM = 0.001
_TIMER_SLACK = 0.01

_CREDENTIALS_ENDED = "CREDENTIALS_ENDED"
"""The reason of a stream that ends because its token has expired. The next stream gets a new one."""


class ResumedStream(Generic[_Response]):
    """What one stream yields, although it may break. Its time starts with the constructor.

    Args:
        method: The method: Watch or FollowOutput.
        request: The request. The cursor of each stream is that of the last message.
        deadline: Seconds for all streams together. None: no limit.
        patience: Seconds without a message for which broken streams are opened again.

    Raises:
        InvalidArgumentError: The deadline is not positive. Reason: BAD_DEADLINE.
    """

    def __init__(
        self,
        method: str,
        request: WatchRequest | FollowOutputRequest,
        deadline: float | None,
        patience: float,
    ) -> None:
        self.method = method
        self.request = request
        self._deadline = deadline
        self._end = math.inf if deadline is None else time.monotonic() + checked_deadline(deadline)
        self._patience = patience
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._broken_since: float | None = None
        self._was_seen = False

    def timeout(self) -> float | None:
        """Returns the seconds that the next stream may take. None: no limit."""
        return None if self._end == math.inf else max(self._end - time.monotonic(), _SHORTEST_STREAM)

    def add(self, message: _Response) -> None:
        """Records a message that was received."""
        if message.cursor:
            self.request.cursor = message.cursor
        self._was_seen = True
        if self._broken_since is not None:
            self._broken_since = None
            self._backoff.reset()

    def pause_after(self, error: SpinCycleError) -> float | None:
        """Returns the seconds to wait before the next stream. None: the error ends it all.

        Raises:
            DeadlineExceededError: The deadline has passed, and an earlier message has shown that the server
                watches. Reason: WAITED_TOO_LONG.
        """
        now = time.monotonic()
        if now >= self._end - _TIMER_SLACK and self._was_seen:
            raise self._too_long() from error
        if self._broken_since is None:
            self._broken_since = now
        pause = self._backoff.next()
        has_time = now + pause < min(self._end, self._broken_since + self._patience)
        return pause if has_time and self._is_resumed(error) else None

    def _is_resumed(self, error: SpinCycleError) -> bool:
        # Servers that stop or are overloaded also cancel streams. A limit ends only what never began.
        return (
            error.status in (Status.UNAVAILABLE, Status.CANCELLED)
            or error.reason == _CREDENTIALS_ENDED
            or (error.status is Status.RESOURCE_EXHAUSTED and self._was_seen)
        )

    def _too_long(self) -> DeadlineExceededError:
        request_id = self.request.request_id
        what = f"request {request_id} has not ended" if request_id else "the watch has not ended"
        if isinstance(self.request, FollowOutputRequest):
            what = f"the try of job {self.request.job_id} has not ended"
        return DeadlineExceededError(
            f"{what} within {self._deadline:g} seconds: it continues, so wait again",
            reason="WAITED_TOO_LONG",
            request_id=request_id,
        )
