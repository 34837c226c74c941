"""The gate that all calls go through: so many at a time, at a pace, and none when the server shuts down."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import ResourceExhaustedError, UnavailableError
from spincycle_server.pacing import Pacer

if TYPE_CHECKING:
    from spincycle_server.rpc.context import CallContext

logger = structlog.get_logger(__name__)

RESERVED = 1000
"""Calls of other servers that are let in when as many calls as may be are inside."""

_REFUSALS_TOLD = 1.0
"""Seconds for which refusals are counted before the log tells them."""


class Gate:
    """Lets calls in, up to a number at a time, until it is closed.

    Calls of other servers have a reserve beyond that, so that users cannot keep them out.

    Args:
        limit: Calls at a time.

    Attributes:
        refusals: Tells the log of calls that were refused, here or further in.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._pacer = Pacer()
        self.refusals = Refusals()

    @property
    def is_full(self) -> bool:
        """Whether a call of a user would be refused since there are too many."""
        return self._inside >= self._limit and not self._closed

    def full_error(self) -> ResourceExhaustedError:
        """Returns the error of a call that is refused since there are too many."""
        return ResourceExhaustedError(
            f"the server has {self._limit} calls at hand, its limit: try again later",
            reason="TOO_MANY_CALLS",
        )

    def enter(self, *, reserved: bool = False) -> None:
        """Lets one call in; a reserved one is another server's.

        Raises:
            UnavailableError: The gate is closed: the server shuts down.
            ResourceExhaustedError: As many calls as may be are inside.
        """
        if self._closed:
            raise UnavailableError("the server is shutting down", reason="SHUTTING_DOWN")
        if self._inside >= self._limit + RESERVED * reserved:
            error = self.full_error()
            self.refusals.add(error)
            raise error
        self._inside += 1
        self._idle.clear()

    async def turn(self, context: CallContext) -> None:
        """Returns when it is the turn of a call that is inside: at once unless many come together by HTTP."""
        if context.transport != "grpc":  # Those have waited for their turn already.
            await self._pacer.turn()

    def leave(self) -> None:
        """Tells that a call has ended."""
        self._inside -= 1
        if self._inside == 0:
            self._idle.set()

    def close(self) -> None:
        """Lets nobody in any more."""
        self._closed = True

    async def wait_idle(self) -> None:
        """Returns when no call is inside."""
        await self._idle.wait()


class Refusals:
    """Tells the log of refused calls, a second's together: a line each would cost more than to refuse."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, error: ResourceExhaustedError) -> None:
        """Counts a refusal by its reason."""
        if not self._counts:
            asyncio.get_running_loop().call_later(_REFUSALS_TOLD, self._tell)
        self._counts[error.reason] += 1

    def _tell(self) -> None:
        logger.warning("calls refused", calls=dict(self._counts))
        self._counts.clear()
