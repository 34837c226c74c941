"""The streams from full runners that offer places to this Request Manager, because they report to others.

There is a stream only while requests wait here for a place of that runner. So a runner offers no place to a
Request Manager that does not need it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from typing import NamedTuple

import structlog

from spincycle_grpc.backoff import Backoff
from spincycle_grpc.errors import PermissionDeniedError, SpinCycleError, Status, UnauthenticatedError
from spincycle_grpc.v1.runner_reports_pb2 import RunnerInfo

logger = structlog.get_logger(__name__)

FIRST_PAUSE = 0.5
"""Seconds before a stream that broke is opened again. They double each time."""

LONGEST_PAUSE = 30.0
"""The longest of these pauses, in seconds."""


class Demand(NamedTuple):
    """What this Request Manager wants from one runner.

    Attributes:
        runner: The runner.
        places: How many places.
    """

    runner: RunnerInfo
    places: int


class _Pause:
    """When a runner whose stream broke may be asked again."""

    def __init__(self) -> None:
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._ends_at = 0.0

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._ends_at

    def begin(self) -> None:
        self._ends_at = time.monotonic() + self._backoff.next()


class CapacityWatch:
    """The open streams, at most one from each runner.

    Args:
        watch: Calls WatchCapacity of a runner for a number of places. Yields how many it offers.
        on_offer: Called with the id of a runner and the number of places that it offers.
        on_denied: Called with the id of a runner that does not accept this server.
    """

    def __init__(
        self,
        watch: Callable[[RunnerInfo, int], AsyncGenerator[int, None]],
        *,
        on_offer: Callable[[str, int], None],
        on_denied: Callable[[str], None],
    ) -> None:
        self._watch = watch
        self._on_offer = on_offer
        self._on_denied = on_denied
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pauses: dict[str, _Pause] = {}
        self._unable: set[str] = set()

    def __contains__(self, runner_id: object) -> bool:
        """Whether the stream of a runner is open."""
        return runner_id in self._streams

    def want(self, demands: Mapping[str, Demand]) -> None:
        """Opens the streams of these runners that are not open, and closes all others.

        Args:
            demands: What is wanted of each runner, by its id.
        """
        self._close_all_but(demands.keys())
        for runner_id, demand in demands.items():
            if runner_id not in self._streams and self._may_open(runner_id):
                task = self._streams[runner_id] = asyncio.create_task(self._follow(demand))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def keep(self, runner_ids: Collection[str]) -> None:
        """Closes the streams of all other runners, and forgets those runners."""
        self._close_all_but(runner_ids)
        self._pauses = {one: pause for one, pause in self._pauses.items() if one in runner_ids}
        self._unable.intersection_update(runner_ids)

    async def close(self) -> None:
        """Closes all streams."""
        self._close_all_but(())
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _close_all_but(self, runner_ids: Collection[str]) -> None:
        for runner_id in [one for one in self._streams if one not in runner_ids]:
            self._streams.pop(runner_id).cancel()

    def _may_open(self, runner_id: str) -> bool:
        pause = self._pauses.get(runner_id)
        return runner_id not in self._unable and (pause is None or pause.is_over)

    async def _follow(self, demand: Demand) -> None:
        """Reads the offers of one stream until it ends."""
        runner_id, left = demand.runner.runner_id, demand.places
        try:
            async with aclosing(self._watch(demand.runner, demand.places)) as offers:
                async for places in offers:
                    self._pauses.pop(runner_id, None)
                    left -= places
                    if left <= 0:  # Another stream may be opened before this one has ended.
                        self._forget(runner_id)
                    self._on_offer(runner_id, places)
        except (UnauthenticatedError, PermissionDeniedError):
            self._on_denied(runner_id)
        except SpinCycleError as error:
            self._broke(runner_id, error)
        finally:
            self._forget(runner_id)

    def _forget(self, runner_id: str) -> None:
        """Forgets the stream of this task, unless it was replaced."""
        if self._streams.get(runner_id) is asyncio.current_task():
            del self._streams[runner_id]

    def _broke(self, runner_id: str, error: SpinCycleError) -> None:
        if error.status is Status.UNIMPLEMENTED or error.reason == "OTHER_RUNNER":
            self._unable.add(runner_id)
        self._pauses.setdefault(runner_id, _Pause()).begin()
        logger.info("runner offers no places", runner_id=runner_id, reason=error.reason, error=error.message)
