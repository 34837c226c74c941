"""How long a call of the clients may take, and when it is tried again."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import grpc

from spincycle_grpc.backoff import Backoff
from spincycle_grpc.errors import InvalidArgumentError

DEFAULT_DEADLINE = 30.0
"""Seconds that a call may take when nobody says otherwise."""

_LONGEST_DEADLINE = 365 * 86400.0


@dataclass(frozen=True)
class RetryPolicy:
    """When a call that failed as UNAVAILABLE is tried again, its deadline permitting.

    Attributes:
        tries: How often the call is made at most.
        first_wait: Seconds before the second try; they double from try to try.
        longest_wait: The most seconds between two tries.
    """

    tries: float
    first_wait: float = 0.1
    longest_wait: float = 1.0


ONCE = RetryPolicy(tries=1)
"""For calls that might do a second time what they did already."""

A_FEW_TIMES = RetryPolicy(tries=5)
"""For calls that may be repeated: a server that restarts is back in a second or two."""

UNTIL_THE_DEADLINE = RetryPolicy(tries=math.inf)
"""For the calls of a wait, which may last for hours, and survives a server that is away for some seconds."""


class Tries:
    """The tries of one call.

    Args:
        policy: When there is another one.
        deadline: Seconds for all of them together.
    """

    def __init__(self, policy: RetryPolicy, deadline: float) -> None:
        self._policy = policy
        self._end = time.monotonic() + deadline
        self._backoff = Backoff(policy.first_wait, policy.longest_wait)
        self._count = 0

    def begin(self) -> float:
        """Counts a try, and returns how many seconds it has."""
        self._count += 1
        return max(self._end - time.monotonic(), 0.001)

    def wait_after(self, error: grpc.RpcError) -> float | None:
        """Returns the seconds to wait after a try that failed; None when there must be no other."""
        if error.code() is not grpc.StatusCode.UNAVAILABLE or self._count >= self._policy.tries:
            return None
        wait = self._backoff.next()
        return wait if time.monotonic() + wait < self._end else None


def checked_deadline(deadline: float) -> float:
    """Returns a deadline that gRPC takes: one that is too far off for it becomes a year.

    Raises:
        InvalidArgumentError: It is no positive number of seconds. Reason: BAD_DEADLINE.
    """
    if not deadline > 0:
        raise InvalidArgumentError(
            f"the deadline is {deadline}, must be a positive number of seconds", reason="BAD_DEADLINE"
        )
    return min(deadline, _LONGEST_DEADLINE)
