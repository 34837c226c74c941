"""The list of Job Runners that users see: what the database knows of them, and the jobs that they run."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.installation_pb2 import Runner
from spincycle_server.request_ids import seconds_of
from spincycle_server.request_manager.page_tokens import checked_page_size, page_token, place_of
from spincycle_server.request_manager.runner_info import RUNNER_ID
from spincycle_server.store.pages import PageRoom

if TYPE_CHECKING:
    from spincycle_grpc.v1.status_pb2 import JobStatus
    from spincycle_server.identity.access import VisibleTypes
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.rpc import CallContext
    from spincycle_server.store import Store
    from spincycle_server.store.leases import LiveRunner

_SCOPE = b"ListRunners"


class RunnerList:
    """Lists the live Job Runners.

    Args:
        store: Knows which runners are alive, and which requests they run.
        runners: Calls the runners.
    """

    def __init__(self, store: Store, runners: Runners) -> None:
        self._store = store
        self._runners = runners

    async def list(
        self, request: messages.ListRunnersRequest, context: CallContext, visible: VisibleTypes
    ) -> messages.ListRunnersResponse:
        """Returns a page of the runners, or over HTTP all of them unless the caller asks for pages.

        Args:
            request: Which page.
            context: The call.
            visible: The types of requests that the caller may view.

        Raises:
            InvalidArgumentError: The page size or the page token is invalid.
        """
        behind = place_of(request.page_token, _SCOPE, _runner_id) or ""
        size = checked_page_size(request.page_size)
        live, counts, jobs = await asyncio.gather(
            self._store.live_runners(),
            self._store.count_running(only_types=visible.only, hidden_types=visible.hidden),
            self._runners.jobs_by_runner(),
        )
        running = await self._visible_jobs(jobs, visible)
        response = messages.ListRunnersResponse()
        is_paged = context.transport == "grpc" or size or request.page_token
        room = PageRoom(size)
        for one in sorted(live, key=lambda one: one.runner.runner_id):
            if one.runner.runner_id <= behind:
                continue
            shown = self._shown(one)
            shown.running_requests = counts.by_runner.get(shown.id, 0)
            shown.more_requests = counts.more
            shown.running_jobs = running.get(shown.id, 0)
            shown.silent = shown.id not in running
            if is_paged and not room.take(shown.ByteSize()):
                response.next_page_token = page_token(_SCOPE, (response.runners[-1].id,))
                break
            response.runners.append(shown)
        return response

    async def _visible_jobs(
        self, jobs: Mapping[str, Collection[JobStatus]], visible: VisibleTypes
    ) -> dict[str, int]:
        """Returns how many of its jobs a caller may see, for each runner that has answered."""
        if visible.shows_all:
            return {runner_id: len(theirs) for runner_id, theirs in jobs.items()}
        found = await self._store.requests_by_id(
            {job.request_id for theirs in jobs.values() for job in theirs}
        )
        shown = {request_id for request_id, request in found.items() if visible.has(request.type)}
        return {
            runner_id: sum(job.request_id in shown for job in theirs) for runner_id, theirs in jobs.items()
        }

    def _shown(self, one: LiveRunner) -> Runner:
        has = one.capabilities
        runner = Runner(
            id=one.runner.runner_id,
            url=one.runner.url,
            version=has.version,
            labels=dict(has.labels),
            features=sorted(has.features),
            job_types=sorted(has.types or ()),
            knows_all_job_types=has.types is None,
            draining=one.draining,
            full=self._runners.is_full(one.runner.runner_id),
        )
        started = seconds_of(runner.id)
        if started is not None:
            runner.started_at.CopyFrom(Timestamp(seconds=started))
        runner.lease_expires_at.FromMicroseconds(one.lease_expires_at)
        return runner


def _runner_id(runner_id: str) -> str:
    if not RUNNER_ID.fullmatch(runner_id):
        raise ValueError("not a runner")
    return runner_id
