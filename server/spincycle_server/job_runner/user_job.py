"""Calls the code of a job, which may block, raise, hang or try to exit the process.

Async methods and the methods of built-in jobs are called on the event loop. All other methods are
called in threads.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from spincycle_grpc.jobs import Job, JobFactory, JobId, Return, make_job, set_output
from spincycle_grpc.output import cut_output
from spincycle_grpc.state import State
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1 import job_pb2
from spincycle_server.builtin_jobs import BUILTIN
from spincycle_server.call_threads import CallThreads
from spincycle_server.job_runner.follow_pace import FollowPace
from spincycle_server.job_runner.try_output import HeldOutput, TryOutput
from spincycle_server.job_runner.try_result import error_text, plain_text
from spincycle_server.telemetry.tries import TryMetrics

MAX_STATUS = 16 * 1024
"""The maximum number of bytes to keep of a status, because one answer has the status of many jobs."""

STOP_LIMIT = 10.0
"""Seconds that a job has to end after `stop` was called. The original has the same limit."""


@dataclass(slots=True)
class TryResources:
    """The job factory, the threads and the limits that all tries of a runner share.

    Attributes:
        factory: Creates the jobs.
        runs: Threads for `run` of synchronous jobs.
        calls: Threads for the short calls: creating a job and `stop`.
        statuses: Threads for `status`, apart from `calls` so that a hanging status cannot delay a stop.
        max_output: The maximum number of bytes to keep of stdout, and of stderr.
        stop_limit: Seconds that a job has to end after `stop` was called.
        on_loop: Job types to create and call on the event loop, because their jobs are built in.
        held: The size of the output of all running tries.
        pace: How fast followers get output.
        metrics: Counts the tries.
    """

    factory: JobFactory
    runs: CallThreads
    calls: CallThreads
    statuses: CallThreads
    max_output: int
    stop_limit: float = STOP_LIMIT
    on_loop: set[str] = field(default_factory=set)
    held: HeldOutput = field(default_factory=HeldOutput)
    pace: FollowPace = field(default_factory=FollowPace)
    metrics: TryMetrics = field(default_factory=TryMetrics)


class NotMadeError(Exception):
    """The job could not be created. The cause is the job's own error."""


class JobExitsError(Exception):
    """The job raised SystemExit or KeyboardInterrupt, which is the cause."""


class UserJob:
    """The code of one job, for one try.

    Args:
        message: The job as in the chain.
        request_id: The id of the request.
        resources: The threads to call the job in.
        output: What the job writes.
        may_start: Returns whether the runner may start jobs now. Called right before `run`, in any thread.
        trace: The trace that the job works in, if any.

    Attributes:
        started_at: When `run` was called, in nanoseconds since the Unix epoch. Until then, when this
            object was made.
        has_begun: `run` has been called, or is about to be called, and nothing can prevent that any more.
    """

    def __init__(
        self,
        message: job_pb2.Job,
        request_id: str,
        resources: TryResources,
        output: TryOutput,
        may_start: Callable[[], bool],
        *,
        trace: TraceContext | None = None,
    ) -> None:
        self.started_at = time.time_ns()
        self.has_begun = False
        self._message = message
        self._request_id = request_id
        self._resources = resources
        self._output = output
        self._may_start = may_start
        self._trace = ("", "") if trace is None else (trace.traceparent, trace.state)
        self._job: Job | None = None
        self._start_prevented = False
        self._start_lock = threading.Lock()
        self._status_call: asyncio.Task[str] | None = None
        self._last_status = ""

    @property
    def is_made(self) -> bool:
        """Whether the job has been created."""
        return self._job is not None

    async def run(self, data: dict[str, Any]) -> Any:
        """Creates the job, runs it, and returns what its `run` returns. It changes `data`.

        Returns a STOPPED `Return` if the job may not start any more.

        Raises:
            NotMadeError: The job could not be created.
            JobExitsError: The job tried to exit the process.
            Exception: An exception that `run` of the job raised.
        """
        try:
            self._job = job = await self._made()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            raise NotMadeError from error
        try:
            if inspect.iscoroutinefunction(job.run):
                return await job.run(data) if self._begin() else Return(State.STOPPED)
            returned: Any = await self._resources.runs.call(self._run_in_thread, job, data)
            return await returned if inspect.isawaitable(returned) else returned
        except (SystemExit, KeyboardInterrupt) as error:  # asyncio would end the whole process
            raise JobExitsError from error

    def prevent_start(self) -> bool:
        """Keeps `run` from being called. Returns False if it has already begun."""
        with self._start_lock:
            self._start_prevented = True
            return not self.has_begun

    async def stop(self) -> None:
        """Calls `stop` of the job.

        Raises:
            Exception: An exception that `stop` raised, including SystemExit and KeyboardInterrupt.
        """
        job = self._job
        if job is None:
            return
        pending: Any
        if inspect.iscoroutinefunction(job.stop) or self._is_on_loop():
            pending = job.stop()
        else:
            pending = await self._resources.calls.call(job.stop)
        if inspect.isawaitable(pending):
            await pending

    async def status(self, limit: float) -> str:
        """Returns the status of the job, or its last known status after `limit` seconds."""
        job = self._job
        if job is None:
            return ""
        if self._is_on_loop():
            return job.status()
        call = self._status_call  # Several callers may wait for it.
        if call is None:
            call = asyncio.ensure_future(self._resources.statuses.call(_status_of, job))
            self._status_call = call
        await asyncio.wait({call}, timeout=limit)
        if call.done():  # There is no second call while one hangs.
            self._last_status = call.result()
            if self._status_call is call:
                self._status_call = None
        return self._last_status

    def _is_on_loop(self) -> bool:
        return self._message.type in self._resources.on_loop

    async def _made(self) -> Job:
        if self._is_on_loop():
            return self._make()
        job = await self._resources.calls.call(self._make)
        if type(job) in BUILTIN:
            self._resources.on_loop.add(self._message.type)
        return job

    def _make(self) -> Job:
        message = self._message
        job_id = JobId(message.type, message.name, message.id, self._request_id, *self._trace)
        job = make_job(self._resources.factory, job_id)
        set_output(job, self._output)
        job.deserialize(message.bytes)
        return job

    def _run_in_thread(self, job: Job, data: dict[str, Any]) -> Any:
        return job.run(data) if self._begin() else Return(State.STOPPED)

    def _begin(self) -> bool:
        """Marks the job as begun, if it may still start. Returns whether it may."""
        with self._start_lock:
            if self._start_prevented or not self._may_start():
                return False
            self.has_begun = True
        self.started_at = time.time_ns()
        return True


def _status_of(job: Job) -> str:
    try:
        return cut_output(plain_text(job.status()), MAX_STATUS)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return f"(no status: {error_text(error)})"
