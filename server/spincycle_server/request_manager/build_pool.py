"""A pool of threads that builds job chains off the event loop, because a job's create may block.

A build runs in a thread, except builds of a few built-in jobs, which never block. If a job's create takes
too long, the build fails with an error that names the node. Nothing can end the thread from outside, so it is
abandoned, and another thread takes its place. The number of abandoned threads is limited.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.duration import format_duration
from spincycle_grpc.errors import InternalError, ResourceExhaustedError
from spincycle_server.builtin_jobs import makes_builtin
from spincycle_server.call_threads import CallThreads, NoThreadError
from spincycle_server.graph import BuildMonitor, BuiltRequest, ChainBuilder, JobCreation, request_specs
from spincycle_server.graph.known_args import check_known_args
from spincycle_server.graph.request_args import record_args, request_sequence
from spincycle_server.large_work import short_turns
from spincycle_server.specs.call_graph import called_by
from spincycle_server.telemetry.limits import BUILDS, HANGING_CREATES, LimitUse

if TYPE_CHECKING:
    from spincycle_grpc.jobs import JobFactory
    from spincycle_grpc.trace_context import TraceContext
    from spincycle_grpc.v1.request_pb2 import Request, RequestSpec
    from spincycle_server.specs.model import NodeSpec, Specs

logger = structlog.get_logger(__name__)

THREADS = 16
"""The maximum number of concurrent builds."""

FEW_NODES = 100
"""The most nodes and sequences of a request that is built on the event loop. It takes some milliseconds."""

MAX_WAITING = 1000
"""The maximum number of builds that wait for a thread. Further builds are refused."""

LONGEST_WAIT = 30.0
"""The maximum time in seconds that a build waits for a thread, for example while jobs hang in create."""

MAX_HANGING = 64
"""The maximum number of abandoned threads, in addition to `THREADS`."""


@dataclass(frozen=True, slots=True)
class PreparedSpecs:
    """Specs with what is derived from them.

    Attributes:
        specs: The specs.
        builder: Builds their job chains.
        nonblocking: The requests that can be built on the event loop.
        request_specs: The specs of all requests, as callers see them.
    """

    specs: Specs
    builder: ChainBuilder
    nonblocking: frozenset[str]
    request_specs: Sequence[RequestSpec]


class BuildPool:
    """Builds job chains in threads.

    Args:
        specs: The request specs.
        job_factory: Makes the jobs.
        create_timeout: Seconds that the create of one job may take.
        longest_wait: Seconds that a build waits for a thread.
        strict_args: Whether all calls are refused that give args which the spec does not name.
    """

    def __init__(
        self,
        specs: Specs,
        job_factory: JobFactory,
        *,
        create_timeout: float,
        longest_wait: float = LONGEST_WAIT,
        strict_args: bool = False,
    ) -> None:
        self._job_factory = job_factory
        self._create_timeout = create_timeout
        self._longest_wait = longest_wait
        self._strict_args = strict_args
        self._threads = CallThreads("build", THREADS, max_abandoned=MAX_HANGING, longest_wait=longest_wait)
        self._unfinished = 0
        self._used = self.prepare(specs)

    def limits(self) -> Iterable[LimitUse]:
        """Returns how many builds may run, wait and hang, and how many do."""
        builds = LimitUse(BUILDS, THREADS + MAX_WAITING, self._unfinished)
        return (builds, *self._threads.hanging(HANGING_CREATES))

    @property
    def request_specs(self) -> Sequence[RequestSpec]:
        """The specs of all requests."""
        return self._used.request_specs

    def prepare(self, specs: Specs) -> PreparedSpecs:
        """Returns specs for `use`. It may take long, and may be called in a thread."""
        return PreparedSpecs(
            specs,
            ChainBuilder(specs, self._job_factory),
            _nonblocking_requests(specs, self._job_factory),
            request_specs(specs),
        )

    def use(self, prepared: PreparedSpecs) -> None:
        """Uses other specs for all further builds. Builds that have begun continue with the earlier ones."""
        self._used = prepared

    async def build(
        self,
        request_type: str,
        given_args: Mapping[str, object],
        request_id: str,
        *,
        is_large: bool = False,
        ids: Iterator[str] | None = None,
        record: Request | None = None,
        trace: TraceContext | None = None,
    ) -> BuiltRequest:
        """Builds the job chain of a request.

        Args:
            request_type: The name of the request spec.
            given_args: The caller's args.
            request_id: The id of the request; "" if there is no request.
            is_large: Whether the args are large, so that even a chain of a few built-in jobs takes long.
            ids: The ids of the jobs. Default: random ids.
            record: The request that gets the args, as in `ChainBuilder.build`.
            trace: The trace that the request belongs to, as there.

        Raises:
            InvalidArgumentError: The type or the args are invalid.
            InternalError: The spec is broken, or a job's create fails or takes too long.
            ResourceExhaustedError: Too many builds wait, or this build has waited too long for a thread.
                Nothing was built. Reasons: TOO_MANY_BUILDS, BUILD_NOT_STARTED.
        """
        if self._unfinished >= THREADS + MAX_WAITING:
            raise ResourceExhaustedError(
                f"the limit of {MAX_WAITING} requests that wait to be built is reached: try again later",
                reason="TOO_MANY_BUILDS",
            )
        used = self._used
        if request_type in used.nonblocking and not is_large:
            return used.builder.build(
                request_type, given_args, request_id, ids=ids, record=record, trace=trace
            )
        monitor = BuildMonitor(time.monotonic)
        self._unfinished += 1
        try:
            return await self._build_in_thread(
                partial(
                    _build_here,
                    used.builder,
                    request_type,
                    given_args,
                    request_id,
                    monitor,
                    is_large=is_large,
                    ids=ids,
                    record=record,
                    trace=trace,
                ),
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

    def check_known_args(self, request_type: str, given: Iterable[str], *, strict: bool) -> None:
        """Checks that the spec names all given args, if the call or the server is strict.

        Raises:
            InvalidArgumentError: The type is invalid, or an arg is unknown.
        """
        if strict or self._strict_args:
            check_known_args(request_sequence(self._used.specs, request_type), given)

    def record_args(self, request: Request, given_args: Mapping[str, object]) -> None:
        """Adds to a request the args that it would be recorded with, without building its job chain.

        Raises:
            InvalidArgumentError: The type or the args are invalid.
        """
        record_args(request, request_sequence(self._used.specs, request.type), given_args)

    async def _build_in_thread(
        self, build: Callable[[], BuiltRequest], monitor: BuildMonitor, request_id: str
    ) -> BuiltRequest:
        """Builds in a thread, and abandons the thread when one create exceeds the timeout."""
        loop = asyncio.get_running_loop()
        overdue: list[JobCreation] = []
        timer: asyncio.TimerHandle | None = None

        def check_creation() -> None:
            nonlocal timer
            creation = monitor.creating
            left = self._create_timeout
            if creation is not None:
                left -= time.monotonic() - creation.since
                if left <= 0:
                    overdue.append(creation)
                    limit.reschedule(loop.time())
                    return
            timer = loop.call_later(max(left, 0.01), check_creation)

        timer = loop.call_later(self._create_timeout, check_creation)
        try:
            async with asyncio.timeout(None) as limit:
                return await self._threads.call(build)
        except TimeoutError:
            if not overdue:  # A job's create raised it.
                raise
            error = self._create_timeout_error(overdue[0], request_id)
            logger.error("job create takes too long", request_id=request_id, error=error.message)
            raise error from None
        finally:
            if timer is not None:
                timer.cancel()

    def _create_timeout_error(self, creation: JobCreation, request_id: str) -> InternalError:
        limit = format_duration(int(self._create_timeout * 1e9))
        return InternalError(
            f"{creation.describe()}: create of job type {creation.job_type} did not end within {limit}",
            reason="JOB_CREATE_TIMEOUT",
            request_id=request_id,
        )


def _build_here(
    builder: ChainBuilder,
    request_type: str,
    given_args: Mapping[str, object],
    request_id: str,
    monitor: BuildMonitor,
    *,
    is_large: bool,
    ids: Iterator[str] | None,
    record: Request | None,
    trace: TraceContext | None,
) -> BuiltRequest:
    with short_turns() if is_large else contextlib.nullcontext():
        return builder.build(
            request_type, given_args, request_id, ids=ids, monitor=monitor, record=record, trace=trace
        )


def _nonblocking_requests(specs: Specs, job_factory: JobFactory) -> frozenset[str]:
    """Returns the requests of few jobs that are all built-in."""
    is_builtin = {job_type: makes_builtin(job_factory, job_type) for job_type in specs.job_types}

    def may_block(node: NodeSpec) -> bool:
        is_users_job = node.category == "job" and not is_builtin[node.type]
        return bool(node.each) or is_users_job or any(name not in specs.sequences for name in called_by(node))

    blocking = {name for name, one in specs.sequences.items() if any(map(may_block, one.all_nodes))}
    return frozenset(name for name in specs.request_types if _is_short(specs, name, blocking))


def _is_short(specs: Specs, request_type: str, blocking: Container[str]) -> bool:
    """Whether a request and all that it may call have at most `FEW_NODES` nodes, and nothing of it blocks.

    Sequences that call others can make a long chain of few nodes, so each call counts.
    """
    count = 0
    calls = [request_type]
    for name in calls:  # The loop appends to the calls.
        nodes = [*specs.sequences[name].all_nodes]
        count += 1 + len(nodes)
        if count > FEW_NODES or name in blocking:
            return False
        calls += [called for node in nodes for called in called_by(node)]
    return True
