"""Building job chains off the event loop, since a job's create may block.

A build runs in a thread, unless it makes a few built-in jobs, which never block. One whose create
takes too long is given up: its caller gets an error that names the node, and the thread is left to
end by itself, since nothing can end it from outside. Its place is free for other builds, up to a
number of threads that hang, so that they cannot use up the machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.duration import format_duration
from spincycle_grpc.errors import InternalError, ResourceExhaustedError
from spincycle_server.builtin_jobs import makes_builtin
from spincycle_server.call_threads import CallThreads, NoThreadError
from spincycle_server.graph import BuildMonitor, BuiltRequest, ChainBuilder, JobCreation, request_specs

if TYPE_CHECKING:
    from spincycle_grpc.jobs import JobFactory
    from spincycle_grpc.v1.request_pb2 import RequestSpec
    from spincycle_server.specs.model import NodeSpec, Specs

logger = structlog.get_logger(__name__)

THREADS = 16
"""Builds at a time."""

MAX_WAITING = 1000
"""Builds that wait for a thread; one more is refused."""

LONGEST_WAIT = 30.0
"""Seconds that a build waits for a thread, as when creates that hang keep them all; then it is refused."""

MAX_HANGING = 64
"""Threads that creates which do not end may keep, beyond those for other builds."""


class BuildPool:
    """Builds job chains in threads.

    Args:
        specs: The request specs.
        job_factory: Makes the jobs.
        create_timeout: Seconds that one job's create may take.
        longest_wait: Seconds that a build waits for a thread.
    """

    def __init__(
        self,
        specs: Specs,
        job_factory: JobFactory,
        *,
        create_timeout: float,
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        self._builder = ChainBuilder(specs, job_factory)
        self._create_timeout = create_timeout
        self._longest_wait = longest_wait
        self._threads = CallThreads("build", THREADS, max_given_up=MAX_HANGING, longest_wait=longest_wait)
        self._unfinished = 0
        self._at_once = _never_blocking(specs, job_factory)
        self.request_specs: Sequence[RequestSpec] = request_specs(specs)

    async def build(
        self, request_type: str, given_args: Mapping[str, object], request_id: str
    ) -> BuiltRequest:
        """Builds a request.

        Raises:
            InvalidArgumentError: The type or the args cannot be used.
            InternalError: The spec is broken, a job cannot be created, or its create takes too long.
            ResourceExhaustedError: Too many builds wait, or this one had to for too long; nothing was built.
        """
        if self._unfinished >= THREADS + MAX_WAITING:
            raise ResourceExhaustedError(
                f"{MAX_WAITING} requests wait to be built, the limit: try again later",
                reason="TOO_MANY_BUILDS",
            )
        if request_type in self._at_once:
            return self._builder.build(request_type, given_args, request_id)
        monitor = BuildMonitor(time.monotonic)
        self._unfinished += 1
        try:
            return await self._watched(
                lambda: self._builder.build(request_type, given_args, request_id, monitor=monitor),
                monitor,
                request_id,
            )
        except NoThreadError as error:
            raise ResourceExhaustedError(
                f"no thread was free to build the request within {self._longest_wait:g} s: try again later, "
                "and look in the server's log for jobs whose create takes too long",
                reason="BUILD_NOT_STARTED",
            ) from error
        except BaseException:
            monitor.cancel()
            raise
        finally:
            self._unfinished -= 1

    async def _watched(
        self, build: Callable[[], BuiltRequest], monitor: BuildMonitor, request_id: str
    ) -> BuiltRequest:
        """Has a thread build, and looks now and then at how long the create at hand has been running."""
        loop = asyncio.get_running_loop()
        overdue: list[JobCreation] = []
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal timer
            creating = monitor.creating
            left = self._create_timeout
            if creating is not None:
                left -= time.monotonic() - creating.since
                if left <= 0:
                    overdue.append(creating)
                    limit.reschedule(loop.time())
                    return
            timer = loop.call_later(max(left, 0.01), look)

        timer = loop.call_later(self._create_timeout, look)
        try:
            async with asyncio.timeout(None) as limit:
                return await self._threads.call(build)
        except TimeoutError:
            if not overdue:  # the job's own
                raise
            raise self._took_too_long(overdue[0], request_id) from None
        finally:
            if timer is not None:
                timer.cancel()

    def _took_too_long(self, creating: JobCreation, request_id: str) -> InternalError:
        limit = format_duration(int(self._create_timeout * 1e9))
        message = f"{creating.describe()}: create of job type {creating.job_type} did not end within {limit}"
        logger.error("job create takes too long", request_id=request_id, error=message)
        return InternalError(message, reason="JOB_CREATE_TIMEOUT", request_id=request_id)


def _never_blocking(specs: Specs, job_factory: JobFactory) -> frozenset[str]:
    """Returns the requests whose jobs are built-in ones alone, each as often as it stands in the specs."""
    is_builtin = {
        node.type: makes_builtin(job_factory, node.type)
        for sequence in specs.sequences.values()
        for node in sequence.nodes.values()
        if node.category == "job"
    }

    def blocks(name: str, around: tuple[str, ...]) -> bool:
        sequence = specs.sequences.get(name)
        if sequence is None or name in around:
            return True
        return any(
            bool(node.each)
            or (node.category == "job" and not is_builtin[node.type])
            or any(blocks(inner, (*around, name)) for inner in _inner(node))
            for node in sequence.nodes.values()
        )

    return frozenset(name for name, spec in specs.sequences.items() if spec.request and not blocks(name, ()))


def _inner(node: NodeSpec) -> Sequence[str]:
    if node.category == "job":
        return ()
    return [node.type] if node.category == "sequence" else list(node.eq.values())
