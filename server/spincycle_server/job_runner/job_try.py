"""One try of a job: runs the job with a timeout, stops it if needed, and returns its log entry.

Nothing that a job does affects more than its own try. That holds for exceptions, wrong return values,
a `run`, `stop` or `status` that hangs, and output of any size.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import structlog
from google.protobuf.struct_pb2 import Struct

from spincycle_grpc.duration import parse_duration
from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.jobs import Return
from spincycle_grpc.output import STDERR, STDOUT, cut_output
from spincycle_grpc.state import State
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1 import job_pb2
from spincycle_server.chain import Run
from spincycle_server.job_runner.try_output import TryOutput
from spincycle_server.job_runner.try_result import (
    TryResult,
    checked_job_data,
    checked_return,
    error_text,
    try_report,
)
from spincycle_server.job_runner.user_job import JobExitsError, NotMadeError, TryResources, UserJob

logger = structlog.get_logger(__name__)

_MAX_ERROR = 64 * 1024
"""The maximum number of bytes to keep of an error, if `max_output` is larger."""

_Work: TypeAlias = asyncio.Future[tuple[Return, Struct | None]]


class JobTry:
    """One try of a job, from its start to its end.

    Args:
        run: The job and the numbers of the try.
        request_id: The id of the request.
        message: The job as in the chain.
        data: The data that the job starts with. The job gets a copy.
        resources: What all tries of the runner share.
        may_start: Returns whether the runner may start jobs now. Called right before the job runs, in
            any thread.
        trace: The trace that the job works in, if any.

    Attributes:
        output: What the job writes.
        is_taken_back: A pause has kept the try from beginning.
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
        trace: TraceContext | None = None,
    ) -> None:
        self.run = run
        self.is_taken_back = False
        self._request_id = request_id
        self._message = message
        self._data = data
        self._resources = resources
        self.output = TryOutput(resources.max_output, resources.held)
        self._job = UserJob(message, request_id, resources, self.output, may_start, trace=trace)
        self._stop_asked = asyncio.Event()
        self._woken: asyncio.Future[None] | None = None
        self._stop_error = ""
        self._is_last = False

    @property
    def started_at(self) -> int:
        """When the try started, in nanoseconds since the Unix epoch."""
        return self._job.started_at

    @property
    def is_made(self) -> bool:
        """Whether the job has been created."""
        return self._job.is_made

    @property
    def has_begun(self) -> bool:
        """Whether `run` of the job has been called."""
        return self._job.has_begun

    def stop(self, error: str = "", *, is_final: bool = False) -> None:
        """Tells the try to stop. Returns at once. A job that has not begun by then never begins.

        Without that promise, a job whose chain is suspended because the lease has expired could still
        start in its thread, as soon as the lease is renewed.

        Args:
            error: The error of a try that fails for good because of the stop; "" for a STOPPED try.
            is_final: Whether the job must not be tried again if it does not stop.
        """
        self._stop_error = self._stop_error or error
        self._is_last = self._is_last or is_final or bool(error)
        self._job.prevent_start()
        self._stop_asked.set()
        self._wake()

    def stop_if_not_begun(self) -> None:
        """Tells the try to stop, unless `run` of the job has been called. Returns at once."""
        if self._job.prevent_start():
            if not self._stop_asked.is_set():
                self.is_taken_back = True
            self.stop()

    async def wait_for_stop(self) -> None:
        """Returns when the try has been told to stop."""
        await self._stop_asked.wait()

    async def result(self) -> TryResult:
        """Runs the try to its end. Raises nothing except CancelledError."""
        if self._stop_asked.is_set():
            return self._stopped(Return(State.STOPPED))
        timeout = parse_duration(self._message.timeout) / 1e9 if self._message.timeout else None
        loop = asyncio.get_running_loop()
        work = loop.create_task(self._work())
        self._woken = loop.create_future()
        work.add_done_callback(self._wake)
        timer = None if timeout is None else loop.call_later(timeout, self._wake)
        try:
            await self._woken
            if work.done():
                return self._ended(work)
            if not self._stop_asked.is_set():
                self._stop_error = f"timed out after {self._message.timeout}"
            return await self._end(work)
        finally:
            if timer is not None:
                timer.cancel()
            work.cancel()

    def _wake(self, _: object = None) -> None:
        """Lets `result` look whether the work is done, or has to be stopped."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def status(self, limit: float) -> str:
        """Returns the status of the job, or its last known status after `limit` seconds."""
        return await self._job.status(limit)

    async def _work(self) -> tuple[Return, Struct | None]:
        """Runs the job, and checks its return value and its data."""
        data = copy.deepcopy(self._data) if self._data else {}
        returned = checked_return(await self._job.run(data))
        if returned.state is not State.COMPLETE or not data:
            return returned, None
        try:
            return returned, checked_job_data(data)
        except InvalidArgumentError as error:
            return Return(State.FAIL, 1, f"job data: {error}", returned.stdout, returned.stderr), None

    async def _end(self, work: _Work) -> TryResult:
        """Stops the job and waits for its end, up to the stop limit."""
        if self._job.prevent_start():  # The job is being created, or waits for a thread.
            return self._stopped(Return(State.STOPPED))
        stopping = asyncio.ensure_future(self._stop_job())
        try:
            await asyncio.wait({work}, timeout=self._resources.stop_limit)
        finally:
            stopping.cancel()
        if work.done():
            return self._ended(work)
        error = self._stop_error or f"did not stop within {self._resources.stop_limit:g}s"
        logger.warning("job does not stop", error=error, **self._log_fields())
        return self._result(Return(State.FAIL, exit=1, error=error), is_last=self._is_last)

    async def _stop_job(self) -> None:
        try:
            await self._job.stop()
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            logger.warning("stop of job failed", error=error_text(error), exc_info=True, **self._log_fields())

    def _ended(self, work: _Work) -> TryResult:
        """Returns the result of work that is done."""
        error = asyncio.CancelledError() if work.cancelled() else work.exception()
        if isinstance(error, NotMadeError):
            text = f"problem creating job runner: {error_text(error.__cause__ or error)}"
            result = self._result(Return(State.FAIL, exit=1, error=text), is_last=True)
            result.entry.started_at = result.entry.finished_at = 0
            return result
        if isinstance(error, JobExitsError):
            error = error.__cause__
        if error is not None:
            text = error_text(error)
            logger.info("job raised an exception", error=text, exc_info=error, **self._log_fields())
            return self._stopped(Return(State.FAIL, exit=1, error=f"panic from job.Run: {text}"))
        returned, data = work.result()
        if self._stop_asked.is_set() or self._stop_error:
            return self._stopped(returned, data)
        return self._result(returned, data)

    def _stopped(self, returned: Return, data: Struct | None = None) -> TryResult:
        """Returns the result of a try that may have been told to stop, or has timed out."""
        if self._stop_error:
            exit_code = returned.exit or 1
            failed = Return(State.FAIL, exit_code, self._stop_error, returned.stdout, returned.stderr)
            return self._result(failed, is_last=self._is_last)
        if self._stop_asked.is_set() and returned.state is not State.COMPLETE:
            returned = Return(State.STOPPED, returned.exit, returned.error, returned.stdout, returned.stderr)
        return self._result(returned, data)

    def _result(self, returned: Return, data: Struct | None = None, *, is_last: bool = False) -> TryResult:
        state = returned.state
        if state not in (State.COMPLETE, State.STOPPED):
            state = State.FAIL
        output = self.output.end({STDOUT: returned.stdout, STDERR: returned.stderr})
        report = try_report(
            self._message,
            self._request_id,
            self.run.number,
            started_at=self.started_at,
            finished_at=time.time_ns(),
            state=state.value,
        )
        entry = report.entry
        entry.exit = returned.exit
        entry.error = cut_output(returned.error, min(self._resources.max_output, _MAX_ERROR))
        entry.stdout = output[STDOUT]
        entry.stderr = output[STDERR]
        return TryResult(report, data, is_last=is_last)

    def _log_fields(self) -> dict[str, Any]:
        return {
            "request_id": self._request_id,
            "job_id": self._message.id,
            "job_type": self._message.type,
            "job_try": self.run.number,
        }
