"""The Job Runners that hold requests: finds the holder of a request and tells it what the database says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

import structlog

from spincycle_grpc.errors import NotFoundError, SpinCycleError
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo

if TYPE_CHECKING:
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

TELL_TRIES = 3
"""Attempts to tell a runner of a stop, a pause, a resume or a decision before the user gets an answer."""

_WAIT = 0.05
"""Seconds between two attempts."""

Tell: TypeAlias = Callable[[RunnerInfo, Assignment], Awaitable[None]]
"""A call to a runner about an assignment."""


class Told(Enum):
    """Whether the holder of a request was told.

    Attributes:
        YES: It was told.
        NO_HOLDER: The request is not RUNNING, or a runner of an original has it.
        HOLDER_LOST: The request is RUNNING, but its runner has no current lease.
        NOT_YET: It does not have the request yet, or not any more, or it does not answer.
    """

    YES = auto()
    NO_HOLDER = auto()
    HOLDER_LOST = auto()
    NOT_YET = auto()


class Holders:
    """Tells the holders of requests what has changed.

    Args:
        store: Says which runner holds a request.
        runners: The live runners.
    """

    def __init__(self, store: Store, runners: Runners) -> None:
        self._store = store
        self._runners = runners

    async def tell(self, request_id: str, tell: Tell, *, tries: int = TELL_TRIES) -> Told:
        """Tells the holder of a request, and tries again while it does not have the request or is silent.

        Each attempt looks for the holder again, because the request may have moved.

        Args:
            request_id: The request.
            tell: The call to the runner.
            tries: The number of attempts.

        Raises:
            UnavailableError: The database cannot be used now.
        """
        told = Told.NOT_YET
        for attempt in range(tries):
            if attempt:
                await asyncio.sleep(_WAIT)
            told = await self._tell_once(request_id, tell)
            if told is not Told.NOT_YET:
                break
        return told

    async def _tell_once(self, request_id: str, tell: Tell) -> Told:
        holder = await self._store.get_assignment(request_id)
        if holder is None:
            return Told.NO_HOLDER
        assignment, runner_id = holder
        runner = self._runners.get(runner_id)
        if runner is None:  # It may report to another Request Manager now.
            await self._runners.refresh()
            runner = self._runners.get(runner_id)
        if runner is None:
            return Told.HOLDER_LOST
        try:
            await tell(runner, assignment)
        except NotFoundError:
            # Either the chain has not reached the runner, or its last report is not committed yet.
            return Told.NOT_YET
        except SpinCycleError as error:
            logger.warning("runner does not answer", runner_id=runner_id, error=str(error))
            return Told.NOT_YET
        return Told.YES
