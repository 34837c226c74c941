"""Looks after watched requests: which of their jobs run, why they wait, and whether they still exist.

No stamp changes with these facts, so they are not found with the changes.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable

import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.v1.request_manager_pb2 import RunningJobs
from spincycle_grpc.v1.status_pb2 import JobStatus, StatusFilter
from spincycle_server.watch.hub import Hub

logger = structlog.get_logger(__name__)

INTERVAL = 1.0
"""Seconds between snapshots of the running jobs, and of the reasons why requests wait."""

LOOK_INTERVAL = 10.0
"""Seconds between looks whether watched requests were deleted, or changed by an original."""


class RunningJobsPoll:
    """Asks for the running jobs of all watched requests at once.

    Args:
        hub: Gives the snapshots to the watchers.
        running_jobs: Asks all Job Runners for their running jobs, of one request or of all.
    """

    def __init__(self, hub: Hub, running_jobs: Callable[[StatusFilter], Awaitable[list[JobStatus]]]) -> None:
        self._hub = hub
        self._running_jobs = running_jobs

    async def run(self) -> None:
        """Asks again and again until it is cancelled. Asks nobody while no running request is watched."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.show()
                await self.explain()
                if time.monotonic() - looked >= LOOK_INTERVAL:
                    looked = time.monotonic()
                    await self.look()
            except SpinCycleError as error:
                logger.warning("looking after watched requests failed", error=str(error))
            except Exception:  # The next round may succeed, and the server works without these snapshots.
                logger.exception("looking after watched requests raised an unexpected exception")

    async def show(self) -> None:
        """Gives the watchers the jobs that run now."""
        watched = self._hub.running_requests()
        if not watched:
            return
        only = watched[0] if len(watched) == 1 else ""
        jobs: defaultdict[str, list[JobStatus]] = defaultdict(list)
        for job in await self._running_jobs(StatusFilter(request_id=only)):
            jobs[job.request_id].append(job)
        for request_id in watched:
            self._hub.show_running(RunningJobs(request_id=request_id, jobs=jobs[request_id]))

    async def explain(self) -> None:
        """Gives the watchers of waiting requests the reasons why these wait now."""
        waiting = self._hub.waiting_requests()
        if waiting:
            await self._hub.look(waiting)

    async def look(self) -> None:
        """Tells the watchers of requests that were deleted, or that an original has changed."""
        watched = self._hub.watched
        if watched:
            await self._hub.look(watched)
