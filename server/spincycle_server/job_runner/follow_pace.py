"""How fast followers get output, so that jobs that write without a pause do not keep the runner busy."""

from __future__ import annotations

RATE = 16 * 1024 * 1024
"""Bytes a second that all followers of a runner get together."""

BATCHES = 200
"""Batches a second that all followers of a runner get together, unless there are more followers than this."""

SHORTEST_PAUSE = 0.1
"""The least number of seconds between two batches for one follower."""

LONGEST_PAUSE = 1.0
"""The largest number of seconds between two batches for one follower."""

_LEAST_BATCH, _LARGEST_BATCH = 16 * 1024, 1024 * 1024


class FollowPace:
    """Divides the rates among the followers whose jobs write.

    Attributes:
        busy: The number of followers that got output in their last turn.
    """

    def __init__(self) -> None:
        self.busy = 0

    @property
    def pause(self) -> float:
        """The seconds between two batches for one follower."""
        return min(max(self.busy / BATCHES, SHORTEST_PAUSE), LONGEST_PAUSE)

    @property
    def batch(self) -> int:
        """The size of a batch for one follower, in bytes."""
        fair = RATE * self.pause / max(self.busy, 1)
        return int(min(max(fair, _LEAST_BATCH), _LARGEST_BATCH))
