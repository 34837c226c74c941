"""The Job Runners of an original Spin Cycle that still run requests, and these requests.

Such a request was started before its database was taken over. Its runner knows no leases and does not report
here, unless a Request Manager of this project has the address of the original one. So it is called at the URL
in the request's row, with the JSON API of the original.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import InvalidArgumentError, SpinCycleError, UnavailableError
from spincycle_grpc.v1.job_runner_pb2 import RunningJobsResponse
from spincycle_grpc.v1.status_pb2 import JobStatus, StatusFilter
from spincycle_grpc.wire import decode_into
from spincycle_server.large_work import run_sized
from spincycle_server.plain_http import NoAnswerError, NotReachedError, call

if TYPE_CHECKING:
    from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

STOP_TIMEOUT = 15.0
"""Seconds in which a runner must answer a stop. It answers when its jobs have stopped, or after 10 s."""

STATUS_TIMEOUT = 1.0
"""Seconds in which a runner must list its running jobs."""

MAX_ANSWER = 4 * 1024 * 1024
"""The largest answer of a runner, in bytes."""

MAX_REQUESTS = 1000
"""How many requests of originals are listed as running."""

MAX_RUNNERS = 20
"""How many runners are asked for their jobs at once. The jobs of further runners are not listed."""


class OriginalRunners:
    """Stops the requests that originals run, and lists their jobs.

    Args:
        store: Knows these requests.
        interval: Seconds between two looks for them.
        ca_file: The CAs to trust; "" for those of the system.
    """

    def __init__(self, store: Store, *, interval: float = 10.0, ca_file: str = "") -> None:
        self._store = store
        self._interval = interval
        self._ca_file = ca_file
        self._requests: Mapping[str, str] = {}

    async def run(self) -> None:
        """Looks for the requests until cancelled. So a call that lists running jobs reads nothing more."""
        while True:
            try:
                await self.refresh()
            except SpinCycleError as error:
                logger.warning("requests of an original not read", error=str(error))
            await asyncio.sleep(self._interval)

    async def refresh(self) -> None:
        """Reads which requests originals run."""
        self._requests = await self._store.run_by_originals(MAX_REQUESTS)

    async def stop(self, url: str, request_id: str) -> bool:
        """Passes a stop on to a runner. Returns False if the runner is gone, or does not have the request.

        Raises:
            UnavailableError: The runner may still run the request. Reason: ORIGINAL_RUNNER_SILENT.
        """
        path = f"/api/v1/job-chains/{request_id}/stop"
        try:
            answer = await call(
                "PUT", url, path, ca_file=self._ca_file, limit=STOP_TIMEOUT, max_bytes=MAX_ANSWER
            )
            if answer.status not in (200, 404):
                raise NoAnswerError(f"status {answer.status}")
        except NotReachedError as error:
            logger.warning("runner of an original is gone", url=url, request_id=request_id, error=str(error))
            return False
        except NoAnswerError as error:
            raise UnavailableError(
                f"the original's job runner at {url} did not confirm the stop: {error}; try again, or end it",
                reason="ORIGINAL_RUNNER_SILENT",
                request_id=request_id,
            ) from error
        logger.info(
            "stop passed on to a runner of an original", url=url, request_id=request_id, status=answer.status
        )
        return answer.status == 200

    async def running(self, status_filter: StatusFilter) -> tuple[Sequence[str], Sequence[JobStatus]]:
        """Returns the requests that originals run, and those of their jobs that their runners list."""
        wanted = {
            request_id: url
            for request_id, url in self._requests.items()
            if status_filter.request_id in ("", request_id)
        }
        urls = sorted({url for url in wanted.values() if url})[:MAX_RUNNERS]
        answers = await asyncio.gather(*(self._jobs_of(url) for url in urls))
        return list(wanted), [
            job
            for url, jobs in zip(urls, answers, strict=True)
            for job in jobs
            if wanted.get(job.request_id) == url
        ]

    async def _jobs_of(self, url: str) -> Sequence[JobStatus]:
        response = RunningJobsResponse()
        try:
            answer = await call(
                "GET",
                url,
                "/api/v1/status/running",
                ca_file=self._ca_file,
                limit=STATUS_TIMEOUT,
                max_bytes=MAX_ANSWER,
            )
            if answer.status != 200:
                raise NoAnswerError(f"status {answer.status}")
            await run_sized(len(answer.body), decode_into, response, answer.body, "jobs")
        except (NotReachedError, NoAnswerError, InvalidArgumentError) as error:
            logger.warning("runner of an original did not list its running jobs", url=url, error=str(error))
            return []
        return response.jobs
