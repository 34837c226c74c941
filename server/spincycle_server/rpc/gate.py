"""The gate that every unary call passes: it limits concurrent calls, throttles bursts, and can close."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterable

import structlog

from spincycle_grpc.errors import ResourceExhaustedError, SpinCycleError, Status, UnavailableError
from spincycle_grpc.v1.errors_pb2 import ErrorReason
from spincycle_server.callback_throttle import CallbackThrottle
from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import BoundedNames, Counters
from spincycle_server.telemetry.limits import CONCURRENT_CALLS, LimitUse

logger = structlog.get_logger(__name__)

RESERVED = 1000
"""The maximum number of concurrent calls from other servers beyond the limit."""

_REFUSALS_LOGGED_EVERY = 1.0
"""Seconds over which refusals are counted before one line of the log reports them."""


_REASONS = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name]

MAX_LINES = 20
"""The maximum number of lines a second about calls of unknown callers. The others are counted."""


class Gate:
    """Admits calls up to a limit until it is closed.

    Calls from other servers have a reserve beyond the limit, so that users' calls cannot block them.

    Args:
        limit: The maximum number of concurrent calls.

    Attributes:
        is_closed: Whether the server is shutting down.
        refusals: Logs refused calls, whether the gate or a later step refused them.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_flight = 0
        self.is_closed = False
        self._closed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._throttle = CallbackThrottle()
        self.refusals = RefusalLog()

    @property
    def is_full(self) -> bool:
        """Whether the gate refuses users' calls because the limit is reached. A closed gate is not full."""
        return self._in_flight >= self._limit and not self.is_closed

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limit and the number of calls in flight."""
        return (LimitUse(CONCURRENT_CALLS, self._limit, self._in_flight),)

    def full_error(self) -> ResourceExhaustedError:
        """Returns the error of calls that are refused because the limit is reached."""
        return ResourceExhaustedError(
            f"the limit of {self._limit} concurrent calls is reached: try again later",
            reason="TOO_MANY_CALLS",
        )

    def check(self, *, is_reserved: bool = False) -> None:
        """Checks that the gate would admit a call now.

        Args:
            is_reserved: Whether another server calls, and the reserve is open to the call.

        Raises:
            UnavailableError: The gate is closed because the server is shutting down.
            ResourceExhaustedError: The limit is reached.
        """
        if self.is_closed:
            self.check_open()
        if self._in_flight >= self._limit + RESERVED * is_reserved:
            raise self.full_error()

    def check_open(self) -> None:
        """Checks that the server does not shut down, whatever the number of calls.

        Raises:
            UnavailableError: The gate is closed because the server is shutting down.
        """
        if self.is_closed:
            raise UnavailableError("the server is shutting down", reason="SHUTTING_DOWN")

    def enter(self, *, is_reserved: bool = False) -> None:
        """Admits one call. Each call that enters must leave.

        The argument and the errors are those of `check`.
        """
        self.check(is_reserved=is_reserved)
        self._in_flight += 1
        if self._in_flight == 1:
            self._idle.clear()

    def turn(self) -> asyncio.Future[None] | None:
        """Returns what an admitted call must await before it starts; None unless many arrive together."""
        return self._throttle.turn()

    def leave(self) -> None:
        """Records that an admitted call has ended."""
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()

    def close(self) -> None:
        """Refuses all calls from now on, and ends open streams. Admitted calls continue."""
        self.is_closed = True
        self._closed.set()

    async def wait_closed(self) -> None:
        """Waits until the gate is closed."""
        await self._closed.wait()

    async def wait_idle(self) -> None:
        """Waits until no call is in flight."""
        await self._idle.wait()


class RefusalLog:
    """Logs refused calls, one line a second: a line for each would cost more than the refusal.

    Attributes:
        metrics: Counts the calls that a limit refused.
    """

    def __init__(self) -> None:
        self.metrics = Counters(catalogue.REFUSALS)
        self._reasons = BoundedNames(len(_REASONS))  # A plugin may raise errors with reasons of its own.
        self._reasons.allow(_REASONS)
        self._counts: Counter[str] = Counter()
        self._own_lines = 0
        self._own_lines_since = -math.inf

    def may_have_line(self) -> bool:
        """Whether the next refusal of an unknown caller may have a line of its own in the log.

        Everybody can make any number of such calls, and could fill the disk with their lines.
        """
        now = time.monotonic()
        if now - self._own_lines_since >= _REFUSALS_LOGGED_EVERY:
            self._own_lines_since, self._own_lines = now, 0
        self._own_lines += 1
        return self._own_lines <= MAX_LINES

    def add(self, error: SpinCycleError) -> None:
        """Counts a refusal under its reason."""
        if not self._counts:
            asyncio.get_running_loop().call_later(_REFUSALS_LOGGED_EVERY, self._log)
        self._counts[error.reason] += 1
        if error.status is Status.RESOURCE_EXHAUSTED:
            self.metrics.of(self._reasons.label(error.reason)).value += 1

    def _log(self) -> None:
        logger.warning("calls refused", calls=dict(self._counts))
        self._counts.clear()
