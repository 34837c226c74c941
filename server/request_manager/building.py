"""Building job chains off the event loop, since a job's create may block.

A build runs in a thread. One whose create takes too long is given up: its caller gets an error
that names the node, and the thread is left to end by itself, since nothing can end it from
outside. Its place is free for other builds, up to a number of threads that hang, so that they
cannot use up the machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import structlog

from server.call_threads import CallThreads
from server.graph import BuildWatch, BuiltRequest, ChainBuilder, Creating, request_specs
from spincycle_grpc.duration import format_duration
from spincycle_grpc.errors import InternalError, ResourceExhaustedError

if TYPE_CHECKING:
    from server.specs.model import Specs
    from spincycle_grpc.jobs import JobFactory
    from spincycle_grpc.v1.request_pb2 import RequestSpec

logger = structlog.get_logger(__name__)

THREADS = 16
"""Builds at a time."""

MAX_WAITING = 1000
"""Builds that wait for a thread; one more is refused."""

MAX_HANGING = 64
"""Threads that creates which do not end may keep, beyond those for other builds."""


class Building:
    """Builds job chains in threads.

    Args:
        specs: The request specs.
        job_factory: Makes the jobs.
        create_timeout: Seconds that one job's create may take.
    """

    def __init__(self, specs: Specs, job_factory: JobFactory, *, create_timeout: float) -> None:
        self._builder = ChainBuilder(specs, job_factory)
        self._create_timeout = create_timeout
        self._threads = CallThreads("build", THREADS, max_given_up=MAX_HANGING)
        self._unfinished = 0
        self.request_specs: Sequence[RequestSpec] = request_specs(specs)

    async def build(
        self, request_type: str, given_args: Mapping[str, object], request_id: str
    ) -> BuiltRequest:
        """Builds a request.

        Raises:
            InvalidArgumentError: The type or the args cannot be used.
            InternalError: The spec is broken, a job cannot be created, or its create takes too long.
            ResourceExhaustedError: Too many builds wait.
        """
        if self._unfinished >= THREADS + MAX_WAITING:
            raise ResourceExhaustedError(
                f"{MAX_WAITING} requests wait to be built, the limit: try again later",
                reason="TOO_MANY_BUILDS",
            )
        watch = BuildWatch(time.monotonic)
        build = asyncio.ensure_future(
            self._threads.call(lambda: self._builder.build(request_type, given_args, request_id, watch=watch))
        )
        self._unfinished += 1
        try:
            return await self._watched(build, watch, request_id)
        except BaseException:
            watch.cancel()
            raise
        finally:
            self._unfinished -= 1
            build.cancel()

    async def _watched(
        self, build: asyncio.Future[BuiltRequest], watch: BuildWatch, request_id: str
    ) -> BuiltRequest:
        """Waits for a build, and looks now and then at how long the create at hand has been running."""
        pause = self._create_timeout
        while True:
            done, _ = await asyncio.wait({build}, timeout=pause)
            if done:
                return build.result()
            creating = watch.creating
            left = self._create_timeout
            if creating is not None:
                left -= time.monotonic() - creating.since
            if creating is not None and left <= 0:
                raise self._took_too_long(creating, request_id)
            pause = max(left, 0.01)

    def _took_too_long(self, creating: Creating, request_id: str) -> InternalError:
        limit = format_duration(int(self._create_timeout * 1e9))
        message = f"{creating.describe()}: create of job type {creating.job_type} did not end within {limit}"
        logger.error("job create takes too long", request_id=request_id, error=message)
        return InternalError(message, reason="JOB_CREATE_TIMEOUT", request_id=request_id)
