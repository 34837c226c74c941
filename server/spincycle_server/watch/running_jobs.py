"""Looks after watched requests: which of their jobs run, why they wait, and whether they still exist.

No stamp changes with these facts, so they are not found with the changes.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence

import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.v1.request_manager_pb2 import RunningJobs
from spincycle_grpc.v1.status_pb2 import JobStatus
from spincycle_server.watch.hub import SNAPSHOT_INTERVAL, AskRunning, Hub
from spincycle_server.watch.watched_request import WatchedRequest

logger = structlog.get_logger(__name__)

LOOK_INTERVAL = 10.0
"""Seconds between looks whether watched requests were deleted, or changed by an original."""


class RunningSnapshots:
    """Asks for the running jobs of watched requests.

    Args:
        jobs_of: Asks the Job Runners with some URLs for the running jobs of some requests. It may return
            those of others too.
    """

    def __init__(
        self, jobs_of: Callable[[Sequence[str], Collection[str]], Awaitable[Sequence[JobStatus]]]
    ) -> None:
        self._jobs_of = jobs_of

    async def of(self, watched: Sequence[WatchedRequest]) -> dict[str, RunningJobs]:
        """Returns the running jobs of requests, by request. One without running jobs has an empty list."""
        jobs: defaultdict[str, list[JobStatus]] = defaultdict(list)
        ids = [one.request_id for one in watched]
        for job in await self._jobs_of(ids, {one.runner_url for one in watched}):
            jobs[job.request_id].append(job)
        return {
            request_id: RunningJobs(request_id=request_id, jobs=jobs.get(request_id)) for request_id in ids
        }


class RunningJobsPoll:
    """Asks for the running jobs of all watched requests at once.

    Args:
        hub: Gives the snapshots to the watchers.
        ask_running: Returns the running jobs of requests, by request.
    """

    def __init__(self, hub: Hub, ask_running: AskRunning) -> None:
        self._hub = hub
        self._ask_running = ask_running

    async def run(self) -> None:
        """Asks again and again until it is cancelled. Asks nobody while no running request is watched."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(SNAPSHOT_INTERVAL)
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
        for running in (await self._ask_running(watched)).values():
            self._hub.show_running(running)

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
