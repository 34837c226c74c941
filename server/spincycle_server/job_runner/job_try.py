"""One try of a job: the job is made, run with a limit, stopped if need be, and its end put into a log entry.

Nothing that a job does reaches further than its own try: not what it raises or returns, not a run,
stop or status that hangs, and not the size of its output.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from google.protobuf.struct_pb2 import Struct

from spincycle_grpc.duration import parse_duration
from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.jobs import Job, JobFactory, JobId, Return, make_job
from spincycle_grpc.output import cut_output
from spincycle_grpc.state import State
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import job_pb2
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_server.builtin_jobs import BUILTIN
from spincycle_server.call_threads import CallThreads
from spincycle_server.chain import Run

logger = structlog.get_logger(__name__)

STOP_LIMIT = 10.0
"""Seconds that a try has to end after it was told to; behaviour of the original."""

MAX_JOB_DATA = 1024 * 1024
"""Bytes of a job's data after a try: they are stored, and copied to the jobs that follow."""

_MAX_ERROR = 64 * 1024


@dataclass(slots=True)
class TryResources:
    """What tries need, shared by all chains of a runner.

    Attributes:
        factory: Makes the jobs.
        runs: Threads in which synchronous jobs run.
        calls: Threads for the short calls: making jobs, stop.
        statuses: Threads for status, which must not be in the way of stop.
        max_output: Bytes of each output that are kept.
        stop_limit: Seconds that a try has to end after it was told to.
        on_loop: Job types whose jobs are made and asked on the loop, since their code is this project's.
    """

    factory: JobFactory
    runs: CallThreads
    calls: CallThreads
    statuses: CallThreads
    max_output: int
    stop_limit: float = STOP_LIMIT
    on_loop: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class TryResult:
    """How a try ended.

    Attributes:
        entry: Its log entry.
        data: The job's data after it, where it is COMPLETE and has any.
        is_last: Whether it failed for good, whatever the job's retry is.
    """

    entry: JobLog
    data: Struct | None = None
    is_last: bool = False


class _NotMadeError(Exception):
    """The job could not be made; the cause says why."""


class _JobExitsError(Exception):
    """The job raised what would end the process; the cause says what."""


class JobTry:
    """One try of a job, from its start to its end.

    Args:
        run: Which try it is.
        request_id: The request of the job.
        message: The job as the chain has it.
        data: The data that it starts with; it gets a copy.
        resources: What tries need.
        may_start: Whether the runner may start jobs now: asked, also in threads, right before the job runs.
    """

    def __init__(
        self,
        run: Run,
        request_id: str,
        message: job_pb2.Job,
        data: dict[str, Any],
        resources: TryResources,
        *,
        may_start: Callable[[], bool] = lambda: True,
    ) -> None:
        self.run = run
        self._request_id = request_id
        self._message = message
        self._data = data
        self._resources = resources
        self._job: Job | None = None
        self._started_at = time.time_ns()
        self._stop_asked = asyncio.Event()
        self._stop_error = ""
        self._is_last = False
        self._may_start = may_start
        self._has_begun = False
        self._ending = False
        self._status_call: asyncio.Task[str] | None = None
        self._last_status = ""

    @property
    def started_at(self) -> int:
        """When it started, in nanoseconds since the Unix epoch."""
        return self._started_at

    def stop(self, error: str = "") -> None:
        """Tells the try to end.

        Args:
            error: Why it is then a FAIL, for good; "" where it is STOPPED.
        """
        self._stop_error = self._stop_error or error
        self._is_last = self._is_last or bool(error)
        self._stop_asked.set()

    async def result(self) -> TryResult:
        """Runs the try to its end. Never raises but when it is cancelled."""
        if self._stop_asked.is_set():
            return self._stopped(Return(State.STOPPED))
        limit = parse_duration(self._message.timeout) / 1e9 if self._message.timeout else None
        work = asyncio.ensure_future(self._work())
        asked = asyncio.ensure_future(self._stop_asked.wait())
        try:
            await asyncio.wait({work, asked}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return self._ended(work)
            if not self._stop_asked.is_set():
                self._stop_error = f"timed out after {self._message.timeout}"
            return await self._end(work)
        finally:
            asked.cancel()
            work.cancel()

    async def status(self, limit: float) -> str:
        """Returns what the job says of itself, or said last; it has `limit` seconds to answer."""
        job = self._job
        if job is None:
            return ""
        if self._message.type in self._resources.on_loop:
            return job.status()
        if self._status_call is None:
            self._status_call = asyncio.ensure_future(self._resources.statuses.call(_status_of, job))
        await asyncio.wait({self._status_call}, timeout=limit)
        if self._status_call.done():  # A call that hangs is not made a second time.
            self._last_status = self._status_call.result()
            self._status_call = None
        return self._last_status

    async def _work(self) -> tuple[Return, Struct | None]:
        """Makes the job and runs it."""
        try:
            self._job = job = await self._made()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            raise _NotMadeError from error
        data = copy.deepcopy(self._data) if self._data else {}
        try:
            returned = await self._run_job(job, data)
        except (SystemExit, KeyboardInterrupt) as error:  # which a task lets through to the whole program
            raise _JobExitsError from error
        if not isinstance(returned, Return):
            wrong = f"job.Run returned {returned!r:.200}, which is not a Return"
            return Return(State.FAIL, exit=1, error=wrong), None
        if returned.state is not State.COMPLETE or not data:
            return returned, None
        try:
            struct = to_struct(data, "data")
            if struct.ByteSize() > MAX_JOB_DATA:
                raise InvalidArgumentError(f"{struct.ByteSize()} bytes, more than {MAX_JOB_DATA}, the limit")
        except InvalidArgumentError as error:
            return Return(State.FAIL, 1, f"job data: {error}", returned.stdout, returned.stderr), None
        return returned, struct

    async def _run_job(self, job: Job, data: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(job.run):
            return await job.run(data) if self._begin() else Return(State.STOPPED)
        returned: Any = await self._resources.runs.call(self._run_in_thread, job, data)
        return await returned if inspect.isawaitable(returned) else returned

    def _run_in_thread(self, job: Job, data: dict[str, Any]) -> Any:
        return job.run(data) if self._begin() else Return(State.STOPPED)

    def _begin(self) -> bool:
        """Notes that the job runs from now on, unless it was told to end while it waited for that."""
        self._has_begun = True  # before the look at `_ending`, which `_end` sets before it looks at this
        if self._ending or not self._may_start():
            return False
        self._started_at = time.time_ns()
        return True

    async def _made(self) -> Job:
        if self._message.type in self._resources.on_loop:
            return self._make()
        job = await self._resources.calls.call(self._make)
        if type(job) in BUILTIN:
            self._resources.on_loop.add(self._message.type)
        return job

    def _make(self) -> Job:
        job_id = JobId(self._message.type, self._message.name, self._message.id, self._request_id)
        job = make_job(self._resources.factory, job_id)
        job.deserialize(self._message.bytes)
        return job

    async def _end(self, work: asyncio.Future[tuple[Return, Struct | None]]) -> TryResult:
        """Stops the job, and waits for its end as long as it may take."""
        self._ending = True
        if not self._has_begun:  # It is being made, or waits for a thread: it will not run.
            return self._stopped(Return(State.STOPPED))
        stopping = asyncio.ensure_future(self._call_stop())
        try:
            await asyncio.wait({work}, timeout=self._resources.stop_limit)
        finally:
            stopping.cancel()
        if work.done():
            return self._ended(work)
        limit = f"{self._resources.stop_limit:g}s"
        error = self._stop_error or f"did not stop within {limit}"
        logger.warning("job does not stop", error=error, **self._names())
        entry = self._entry(Return(State.FAIL, exit=1, error=error))
        return TryResult(entry, is_last=self._is_last)

    async def _call_stop(self) -> None:
        job = self._job
        if job is None:
            return
        try:
            if inspect.iscoroutinefunction(job.stop) or self._message.type in self._resources.on_loop:
                pending = job.stop()
            else:
                pending = await self._resources.calls.call(job.stop)
            if inspect.isawaitable(pending):
                await pending
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            logger.warning("stop of job failed", error=_said(error), exc_info=True, **self._names())

    def _ended(self, work: asyncio.Future[tuple[Return, Struct | None]]) -> TryResult:
        """Returns what came of work that is done."""
        error = asyncio.CancelledError() if work.cancelled() else work.exception()
        if isinstance(error, _NotMadeError):
            said = f"problem creating job runner: {_said(error.__cause__ or error)}"
            entry = self._entry(Return(State.FAIL, exit=1, error=said))
            entry.started_at = entry.finished_at = 0
            return TryResult(entry, is_last=True)
        if isinstance(error, _JobExitsError):
            error = error.__cause__
        if error is not None:
            logger.info("job raised", error=_said(error), exc_info=error, **self._names())
            said = f"panic from job.Run: {_said(error)}"
            return self._stopped(Return(State.FAIL, exit=1, error=said))
        returned, data = work.result()
        if self._stop_asked.is_set() or self._stop_error:
            return self._stopped(returned, data)
        return TryResult(self._entry(returned), data)

    def _stopped(self, returned: Return, data: Struct | None = None) -> TryResult:
        """Returns the end of a try that may have been told to end."""
        if self._stop_error:
            state, error = State.FAIL, self._stop_error
            entry = self._entry(Return(state, returned.exit or 1, error, returned.stdout, returned.stderr))
            return TryResult(entry, is_last=self._is_last)
        if self._stop_asked.is_set() and returned.state is not State.COMPLETE:
            returned = Return(State.STOPPED, returned.exit, returned.error, returned.stdout, returned.stderr)
        return TryResult(self._entry(returned), data)

    def _entry(self, returned: Return) -> JobLog:
        state = returned.state
        if state not in (State.COMPLETE, State.STOPPED):
            state = State.FAIL
        limit = self._resources.max_output
        return log_entry(
            self._message,
            self._request_id,
            self.run.number,
            started_at=self._started_at,
            finished_at=time.time_ns(),
            state=state,
            exit=returned.exit,
            error=cut_output(returned.error, min(limit, _MAX_ERROR)),
            stdout=cut_output(returned.stdout, limit),
            stderr=cut_output(returned.stderr, limit),
        )

    def _names(self) -> dict[str, Any]:
        return {
            "request_id": self._request_id,
            "job_id": self._message.id,
            "job_type": self._message.type,
            "job_try": self.run.number,
        }


def log_entry(job: job_pb2.Job, request_id: str, number: int, **fields: Any) -> JobLog:
    """Returns the log entry of a try; the fields are those that the job itself does not tell."""
    entry = JobLog(request_id=request_id, job_id=job.id, name=job.name, type=job.type, **fields)
    setattr(entry, "try", number)  # a word of Python's own
    return entry


def _status_of(job: Job) -> str:
    try:
        return str(job.status())
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return f"(no status: {_said(error)})"


def _said(error: BaseException) -> str:
    """Returns the text of an exception, or its name where it has none."""
    try:
        return str(error) or type(error).__name__
    except Exception:
        return type(error).__name__
