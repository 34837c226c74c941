"""Runs one chain: carries out the actions of its state machine, with real jobs, a clock and reports.

The state machine gets the ends of tries one by one, in the order in which they were reported. It gets
the end of a try with effects only after its report is committed. So the committed reports, in their
order, explain the state of the chain, and no job starts that depends on a try that could still be lost.

Before the first try with effects, the runner asks a Request Manager whether the assignment is still
valid. The chain may have arrived late or twice, and another runner may have the request by then.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.state import FINAL_STATES, STATES, State
from spincycle_grpc.structs import from_struct
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.runner_reports_pb2 import REFUSAL_REASON_STALE, Assignment
from spincycle_grpc.v1.status_pb2 import JobStatus
from spincycle_server.chain import Actions, Run, RunningChain
from spincycle_server.job_runner.chain_approvals import ChainApprovals
from spincycle_server.job_runner.chain_limits import ChainLimits
from spincycle_server.job_runner.chain_outputs import ChainOutputs
from spincycle_server.job_runner.chain_reports import ChainReports
from spincycle_server.job_runner.job_try import JobTry
from spincycle_server.job_runner.outbox import Finished, Outbox, ReportRefusedError
from spincycle_server.job_runner.suspect_tries import TURN, SuspectRules, SuspectTries
from spincycle_server.job_runner.suspect_turns import SuspectTurns
from spincycle_server.job_runner.try_result import TryResult, try_report
from spincycle_server.job_runner.user_job import TryResources
from spincycle_server.telemetry.spans_of_requests import try_trace

if TYPE_CHECKING:
    from spincycle_grpc.trace_context import TraceContext
    from spincycle_grpc.v1.approval_pb2 import ApprovalKey, ApprovalOutcome
    from spincycle_grpc.v1.job_pb2 import Job
    from spincycle_grpc.v1.job_runner_pb2 import Suspect
    from spincycle_grpc.v1.limit_pb2 import SequenceLimitOutcome, SequenceLimitWait
    from spincycle_server.chain import Timer, Wait
    from spincycle_server.job_runner.waiting_try import WaitingTry
    from spincycle_server.telemetry.spans_of_requests import RequestSpans

logger = structlog.get_logger(__name__)

STATUS_LIMIT = 0.5
"""Seconds that jobs have to return their status."""

_WAITS_FOR_TURN = "(waits for its turn, because its job runner died) "

_TAKEN_AT_ONCE = 200
"""Tries to handle before other tasks of the event loop get a turn."""


_now = time.monotonic_ns


@dataclass(slots=True)
class _Ended:
    """A try that has ended and been reported.

    Attributes:
        run: The try.
        result: How it ended.
        added: What it adds to the progress of the chain.
        committed: Done when the report is committed; None if nobody waits for that.
        is_taken_back: A pause has kept the try from beginning.
    """

    run: Run
    result: TryResult
    added: Finished
    committed: asyncio.Future[None] | None
    is_taken_back: bool = False


class Traverser:
    """Runs one chain to its end.

    Args:
        chain: The chain, not started.
        assignment: The assignment of its request to this runner.
        resources: What all tries of the runner share.
        outbox: The queue of reports.
        noop_types: Job types without effects. No job is created for them, and no commit is awaited.
        may_start: Returns whether the runner may start jobs now. When it returns False, the caller suspends
            the chain.
        suspect: What is known of the chain if its runner died.
        suspect_rules: The turns and limits of suspects, shared by all chains of the runner.
        spans: Records spans of requests; None to record none.

    Attributes:
        outputs: What its tries write.
    """

    def __init__(
        self,
        chain: RunningChain,
        assignment: Assignment,
        resources: TryResources,
        outbox: Outbox,
        *,
        noop_types: frozenset[str] = frozenset(),
        may_start: Callable[[], bool] = lambda: True,
        suspect: Suspect | None = None,
        suspect_rules: SuspectRules | None = None,
        spans: RequestSpans | None = None,
    ) -> None:
        self._chain = chain
        self._jobs = jobs = chain.jobs
        self._trace = chain.trace
        self._spans = spans
        self._loop = asyncio.get_running_loop()
        self._assignment = assignment
        self._request_id = assignment.request_id
        self._resources = resources
        self._outbox = outbox
        self._reports = ChainReports(outbox, assignment, chain, self._loop)
        self._approvals = ChainApprovals(chain, self._reports)
        self._limits = ChainLimits(chain, self._reports)
        self._has_keys = chain.has_keys
        self._must_be_recorded = chain.must_be_recorded
        self.outputs = ChainOutputs(chain.tries_of, resources.pace)
        self._suspects = SuspectTries(
            suspect,
            suspect_rules or SuspectRules(SuspectTurns(TURN)),
            self._reports,
            # Without `self`, which would be a reference cycle: only the garbage collector could free it.
            lambda run: jobs[run.job_id].type not in noop_types,
        )
        self._noop_types = noop_types
        self._may_start = may_start
        self._to_run: deque[Run] = deque()
        self._tries: dict[str, JobTry] = {}
        self._waiting: dict[str, JobTry] = {}
        self._ended: deque[_Ended] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._handles: set[asyncio.TimerHandle] = set()
        self._on_done: Callable[[], None] = lambda: None
        self._pumping = False
        self._room_awaited = False
        # Epoch 0: no Request Manager assigned the chain, so there is no claim.
        self._is_claimed = not assignment.epoch
        self._dropped = False
        self._is_given_up = False
        self._told_to_skip: bool | None = None
        self._log = logger.bind(request_id=self._request_id)

    def start(self, on_done: Callable[[], None], ending: State | None = None) -> None:
        """Starts the chain. Calls `on_done` when it has ended and its last report is committed.

        Args:
            on_done: See above.
            ending: FAIL or STOPPED if the chain only runs the `finally` parts that it owes, and ends so.
        """
        self._on_done = on_done
        self._log.debug("chain started", epoch=self._assignment.epoch)
        given_up = None if self._suspects.suspect is None else self._suspects.given_up(self._chain)
        if given_up is not None and (ending is None or self._jobs[given_up[0].job_id].is_finally):
            run, error = given_up
            rest = self._start_without(run)
            if rest is None:
                self._give_up(run, error)
                return
            actions = rest
            self._report_given_up(run, error, must_fail=True)
        else:
            actions = self._chain.start(_now(), ending=ending)
        if self._suspects.suspect is not None:
            self._suspects.begin(self._approvals.without(actions.run))
        self._apply(actions)
        self._pump()
        if not self._is_claimed and self._chain.done is None:  # A chain of noops alone has ended by now.
            self._reports.claim().add_done_callback(self._claim_answered)

    def _start_without(self, given_up: Run) -> Actions | None:
        """Starts the `finally` parts that the chain owes, without a try that kills its runners.

        If it is a try of such a part, it counts as failed. Returns None if nothing is left to run.
        """
        actions = self._chain.start(_now(), ending=State.FAIL)
        if self._jobs[given_up.job_id].is_finally:
            if given_up not in actions.run:  # It would run later, and kill this runner too.
                return None
            actions.run.remove(given_up)
            actions.add(self._chain.try_finished(given_up.job_id, State.FAIL, _now(), is_last=True))
        return actions if actions.done is None else None

    def stop(self, *, skip_finally: bool = False) -> None:
        """Stops the chain for good, perhaps with its `finally` parts. Returns at once.

        It is called again with each list of chains while `finally` parts run. That has no effect.
        """
        if self._told_to_skip is not None and self._told_to_skip >= skip_finally:
            return
        self._told_to_skip = skip_finally
        self._log.info("chain told to stop", skip_finally=skip_finally)
        self._apply(self._chain.stop(_now(), skip_finally=skip_finally))
        self._pump()

    def suspend(self) -> None:
        """Stops the chain so that it can be resumed. Returns at once.

        Waits for approvals and for keys are taken back, so they go on when the chain is resumed.
        """
        if self._chain.can_suspend:
            waits = [run for run in self._to_run if run.job_id in self._approvals.job_ids]
            self._to_run = deque(self._approvals.without(self._to_run))
            waits += self._limits.take_back()
            not_begun = [*(run.job_id for run in waits), *self._approvals.take_back()]
            self._apply(self._chain.suspend(_now(), not_begun=not_begun))
            self._pump()

    def pause(self, *, stops_jobs: bool) -> None:
        """Starts no further job, and then suspends the chain. Returns at once.

        Args:
            stops_jobs: Whether running jobs are told to stop. Otherwise the chain is suspended when they have
                ended.
        """
        self._log.info("chain told to pause", now=stops_jobs)
        if stops_jobs:
            self.suspend()
        elif self._chain.can_pause:
            waits = [*self._to_run, *self._limits.take_back()]
            not_begun = [*(run.job_id for run in waits), *self._approvals.take_back()]
            self._to_run.clear()
            for job_try in self._tries.values():
                job_try.stop_if_not_begun()
            self._apply(self._chain.pause(_now(), not_begun=not_begun))
            self._pump()

    def unpause(self) -> None:
        """Goes on with a chain that was told to pause and has not ended since. Returns at once."""
        self._apply(self._chain.unpause(_now()))
        self._pump()

    def end_approval(self, outcome: ApprovalOutcome) -> None:
        """Ends the wait of a job for an approval, if it waits. Returns at once."""
        ended = self._approvals.decided(outcome)
        if ended is not None and not self._is_given_up:
            self._wait_ended(*ended)
            self._pump()

    def end_limit_wait(self, outcome: SequenceLimitOutcome) -> None:
        """Ends the wait of a sequence for its keys, if it waits. Returns at once."""
        if self._is_given_up:
            return
        if not outcome.reason:
            self._to_run.extendleft(reversed(self._limits.granted(outcome)))
            self._watch_limits()
        else:
            rest, failed = self._limits.refused(outcome, self._to_run)
            self._to_run = deque(rest)
            for run, result in failed:
                self._wait_ended(run, result)
        self._pump()

    @property
    def limit_waits(self) -> list[SequenceLimitWait]:
        """The sequences that wait for keys."""
        return self._limits.waits()

    @property
    def approvals(self) -> list[ApprovalKey]:
        """The jobs that wait for an approval, each with its try."""
        return self._approvals.keys()

    @property
    def is_pausing(self) -> bool:
        """Whether only jobs that run already go on."""
        return self._chain.is_pausing

    def drop(self, reason: str) -> None:
        """Stops the chain and reports nothing more about it."""
        if self._dropped:
            return
        self._dropped = True
        self._log.warning("chain dropped", reason=reason)
        self._suspects.forget()
        self._reports.forget()
        self.outputs.close()
        self._ended.clear()
        self._to_run.clear()
        self._approvals.take_back()
        self._limits.take_back()
        self._cancel_handles()
        for job_try in self._tries.values():
            job_try.stop()
        if not self._tasks:
            self._finish("dropped")

    async def status(self) -> list[JobStatus]:
        """Returns the status of all running jobs, in no particular order."""
        running = [
            (job_try, _WAITS_FOR_TURN if self._suspects.waits(job_try.run) else "")
            for job_try in self._tries.values()
        ]
        running += [
            (job_try, "(retry sleep) ")
            for job_id, job_try in self._waiting.items()
            if self._chain.waits(job_id)
        ]
        said = await asyncio.gather(*(job_try.status(STATUS_LIMIT) for job_try, _ in running))
        return (
            [
                self._job_status(job_try, prefix + text)
                for (job_try, prefix), text in zip(running, said, strict=True)
            ]
            + [
                self._status_of(wait.run, wait.since, "(waits for approval) ")
                for wait in self._approvals.waits()
            ]
            + [self._limit_status(one) for one in self._limits.waiting_runs()]
        )

    def has_job(self, job_id: str) -> bool:
        """Returns whether the chain has a job."""
        return job_id in self._jobs

    def _job_status(self, job_try: JobTry, status: str) -> JobStatus:
        return self._status_of(job_try.run, job_try.started_at, status)

    def _watch_limits(self) -> None:
        for reported in self._limits.reported():
            reported.add_done_callback(self._handle_refusal)

    def _limit_status(self, one: WaitingTry) -> JobStatus:
        """Returns the status of a try that waits for keys. The first job of a sequence has its path."""
        keys = self._limits.keys_missing(one.run)
        status = self._status_of(one.run, one.since, f"(waits for limits: {keys}) ")
        if not status.path:
            status.path.extend(self._sequence_path_around(one.run))
        return status

    def _sequence_path_around(self, run: Run) -> tuple[str, ...]:
        """Returns the path of the sequence of a try: what people know of a job that only connects others."""
        return self._chain.sequence_path_of(self._chain.sequence_of(run.job_id))

    def _status_of(self, run: Run, started_at: int, status: str) -> JobStatus:
        job = self._jobs[run.job_id]
        return JobStatus(
            request_id=self._request_id,
            job_id=job.id,
            type=job.type,
            name=job.name,
            started_at=started_at,
            state=state_pb2.STATE_RUNNING,
            status=status,
            path=self._chain.path_of(job.id),
            **{"try": run.number},
        )

    def _claim_answered(self, claim: asyncio.Future[None]) -> None:
        if not self._handle_refusal(claim):
            self._is_claimed = True
            self._pump()

    def _apply(self, actions: Actions) -> None:
        """Carries out actions of the chain, unless its end is reported already."""
        if self._is_given_up:
            return
        if self._has_keys:
            self._limits.take(actions)
            self._watch_limits()
            if actions.stop:
                self._to_run += self._limits.take_back({stop.job_id for stop in actions.stop})
        for stop in actions.stop:
            job_try = self._tries.get(stop.job_id)
            if job_try is not None:
                job_try.stop(stop.error, is_final=stop.is_final)
            elif (ended := self._approvals.stopped(stop.job_id, stop.error)) is not None:
                self._wait_ended(*ended)
        self._to_run += actions.run
        if actions.unneeded:
            self._take_back_waits(set(actions.unneeded))
        if actions.stop and self._to_run:
            self._stop_waiting_runs({stop.job_id: stop.error for stop in actions.stop})
        for wait in actions.wait:
            self._later(wait, self._chain.wait_over)
        for timer in actions.timers:
            self._later(timer, self._chain.timer_over)
        if actions.done is not None:
            self._end(actions.done)

    def _take_back_waits(self, unneeded: set[str]) -> None:
        """Ends tries that wait for keys, so that a sequence around them can begin its next try."""
        rest, ended = self._limits.unneeded(unneeded, self._to_run)
        self._to_run = deque(rest)
        for run, result in ended:
            self._tried(run, result, is_made=True, is_taken_back=True)

    def _later(self, wait: Wait | Timer, over: Callable[[tuple[str, str, int], int], Actions]) -> None:
        def fire() -> None:
            self._handles.discard(handle)
            self._apply(over(wait.key, _now()))
            self._pump()

        handle = self._loop.call_later(wait.nanoseconds / 1e9, fire)
        self._handles.add(handle)

    def _pump(self) -> None:
        """Starts waiting runs and handles ended tries, until nothing is left or the outbox is full."""
        if self._pumping:
            return
        self._pumping = True
        try:
            taken = 0
            while not self._dropped:
                next_job = self._job_to_launch() if self._to_run else None
                committed = self._ended[0].committed if self._ended else None
                next_ended = bool(self._ended) and (committed is None or committed.done())
                if next_job is None and not next_ended:
                    return
                if taken == _TAKEN_AT_ONCE:
                    self._loop.call_soon(self._pump)
                    return
                taken += 1
                if next_job is not None and not self._outbox.full:
                    self._launch(self._to_run.popleft(), next_job)
                elif next_ended:
                    self._take_in(self._ended.popleft())
                else:
                    self._await_room()
                    return
        finally:
            self._pumping = False

    def _job_to_launch(self) -> Job | None:
        """Returns the job of the first waiting run, if it may start now."""
        if not self._may_start():
            return None
        job = self._jobs[self._to_run[0].job_id]
        return job if self._is_claimed or job.type in self._noop_types else None

    def _await_room(self) -> None:
        """Continues when the outbox has room, so that unreported tries stay bounded."""
        if self._room_awaited:
            return
        self._room_awaited = True

        async def wait() -> None:
            await self._outbox.wait_room()
            self._room_awaited = False

        self._spawn(wait())

    def _launch(self, run: Run, job: Job) -> None:
        self._waiting.pop(run.job_id, None)
        if self._has_keys and self._limits.defers(run):
            self._watch_limits()
            return
        if run.job_id in self._approvals.job_ids:
            self._approvals.begin(run).add_done_callback(self._handle_refusal)
            return
        if job.type in self._noop_types:
            now = time.time_ns()
            result = TryResult(
                try_report(
                    job,
                    self._request_id,
                    run.number,
                    started_at=now,
                    finished_at=now,
                    state=state_pb2.STATE_COMPLETE,
                )
            )
            self._resources.metrics.try_ended(job.type, state_pb2.STATE_COMPLETE, 0, is_made=True)
            must_wait = run.job_id in self._must_be_recorded
            self._report(run, result, self._loop.create_future() if must_wait else None)
            return
        job_try = JobTry(
            run,
            self._request_id,
            job,
            self._chain.data_of(run.job_id),
            self._resources,
            may_start=self._may_start,
            trace=self._trace_of(run),
        )
        self._tries[run.job_id] = job_try
        self.outputs.begin(run.job_id, run.number, job_try.output)
        self._spawn(self._follow(job_try))

    def _trace_of(self, run: Run) -> TraceContext | None:
        """Returns the trace in which a try works: within its own span, if that is recorded."""
        trace = self._trace
        if trace is None or self._spans is None or not trace.is_sampled:
            return trace
        return try_trace(trace, self._request_id, self._assignment.epoch, run.job_id, run.number)

    async def _follow(self, job_try: JobTry) -> None:
        run = job_try.run
        metrics = self._resources.metrics
        metrics.running += 1
        try:
            if self._suspects.covers(run):
                result = await self._suspects.result(job_try, self._handle_refusal)
            else:
                result = await job_try.result()
        finally:
            metrics.running -= 1
        del self._tries[run.job_id]
        if not self._dropped:
            self._waiting[run.job_id] = job_try  # Until the chain retries or ends the job.
        self._tried(run, result, is_made=job_try.is_made, is_taken_back=job_try.is_taken_back)

    def _wait_ended(self, run: Run, result: TryResult) -> None:
        """Reports the end of a wait for an approval, or for keys."""
        self._tried(run, result, is_made=True, is_taken_back=False)

    def _tried(self, run: Run, result: TryResult, *, is_made: bool, is_taken_back: bool) -> None:
        """Counts and reports the end of a try, unless the chain was dropped."""
        entry = result.entry
        self._resources.metrics.try_ended(
            entry.type, entry.state, entry.finished_at - entry.started_at, is_made=is_made
        )
        if self._spans is not None and (trace := self._trace_of(run)) is not None:
            self._spans.tried(entry, self._assignment.epoch, trace)
        if self._dropped:
            return
        if entry.state == state_pb2.STATE_FAIL:
            self._log.info("try failed", job_id=run.job_id, job_try=run.number, error=entry.error[:200])
        self._report(run, result, self._loop.create_future(), is_taken_back=is_taken_back)

    def _stop_waiting_runs(self, errors: dict[str, str]) -> None:
        """Ends tries that were stopped before they began."""
        waiting, self._to_run = self._to_run, deque()
        for run in waiting:
            if run.job_id not in errors:
                self._to_run.append(run)
                continue
            job_try = JobTry(run, self._request_id, self._jobs[run.job_id], {}, self._resources)
            job_try.stop(errors[run.job_id])
            self._tries[run.job_id] = job_try
            self._spawn(self._follow(job_try))

    def _report(
        self,
        run: Run,
        result: TryResult,
        committed: asyncio.Future[None] | None,
        *,
        is_taken_back: bool = False,
    ) -> None:
        has_failed = result.entry.state == state_pb2.STATE_FAIL
        path = self._chain.path_of(run.job_id) if self._chain.has_paths else ()
        if has_failed and not path:  # It did not get its keys, or was stopped before it began.
            path = self._sequence_path_around(run)
        if path:
            result.entry.path.extend(path)
        added = self._reports.add_try(
            run,
            result,
            committed,
            is_approval=run.job_id in self._approvals.job_ids,
            must_fail=has_failed and self._chain.fails_request(run.job_id, is_last=result.is_last),
        )
        self._ended.append(_Ended(run, result, added, committed, is_taken_back))
        if committed is not None:
            committed.add_done_callback(lambda _: self._committed(run))

    def _committed(self, run: Run) -> None:
        self.outputs.recorded(run.job_id, run.number)
        self._pump()

    def _take_in(self, ended: _Ended) -> None:
        if ended.committed is not None and self._handle_refusal(ended.committed):
            return
        result = ended.result
        self._reports.taken_in(ended.added)
        actions = self._chain.try_finished(
            ended.run.job_id,
            STATES[result.entry.state],
            _now(),
            data=from_struct(result.data) if result.data is not None else None,
            is_last=result.is_last,
            is_taken_back=ended.is_taken_back,
        )
        state = self._chain.state_of(ended.run.job_id)
        if state is not State.RUNNING:
            self._waiting.pop(ended.run.job_id, None)
        if state in FINAL_STATES:
            self._resources.metrics.job_ended(result.entry.type, state)
        if self._suspects.suspect is not None:
            self._suspects.continued(ended.run, self._approvals.without(actions.run))
        self._apply(actions)

    def _handle_refusal(self, committed: asyncio.Future[None]) -> bool:
        """Drops or fails the chain if its report was refused. Returns whether it was refused."""
        error = committed.exception()
        if not isinstance(error, ReportRefusedError):
            return False
        if error.reason == REFUSAL_REASON_STALE:
            self.drop("its request has another runner, or has ended")
            return True
        self._fail("its report cannot be stored: see the log of the request manager")
        return True

    def _fail(self, why: str) -> None:
        """Drops the chain and reports FAIL, because its tries cannot be recorded."""
        self.drop(why)
        # The Request Manager decides whether the end counts. A refusal needs no reaction.
        self._reports.finish(State.FAIL).add_done_callback(lambda told: told.exception())

    def _give_up(self, run: Run, error: str) -> None:
        """Ends the chain with FAIL, because one of its jobs kills its runners. Nothing changes that end."""
        self._is_given_up = True
        self._report_given_up(run, error)
        self._finish_after(self._reports.finish(State.FAIL), State.FAIL.name)

    def _report_given_up(self, run: Run, error: str, *, must_fail: bool = False) -> None:
        """Reports that a job kills its runners, so that the request must FAIL."""
        self._log.error("request given up", job_id=run.job_id, error=error)
        now = time.time_ns()
        report = try_report(
            self._jobs[run.job_id],
            self._request_id,
            run.number,
            started_at=now,
            finished_at=now,
            state=state_pb2.STATE_FAIL,
        )
        report.entry.exit = 1
        report.entry.error = error
        self._reports.add_try(run, TryResult(report, is_last=True), None, must_fail=must_fail)

    def _end(self, state: State) -> None:
        self._cancel_handles()
        if state is State.SUSPENDED:
            committed = self._reports.suspend(self._chain.suspended(_now()))
        else:
            committed = self._reports.finish(state)
        if committed is None:
            self.drop("it is too large to suspend: the request manager takes it over from its record")
            return
        name = state.name
        self._log.info("chain ended", state=name, finished_jobs=self._chain.finished_jobs)
        self._finish_after(committed, name)

    def _finish_after(self, committed: asyncio.Future[None], how: str) -> None:
        """Releases the chain when its end is committed, unless it was dropped."""

        def finish(_: asyncio.Future[None]) -> None:
            if not self._dropped and not self._handle_refusal(committed):
                self._finish(how)

        committed.add_done_callback(finish)

    def _finish(self, how: str) -> None:
        self._log.debug("chain released", how=how)
        self.outputs.close()
        self._chain.release()
        on_done, self._on_done = self._on_done, lambda: None
        on_done()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._after)

    def _after(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("chain cannot continue", exc_info=error)
            self.drop("internal error of the job runner: see its log")
        if self._dropped and not self._tasks:
            self._finish("dropped")
        elif not self._dropped:
            self._pump()

    def _cancel_handles(self) -> None:
        for handle in self._handles:
            handle.cancel()
        self._handles.clear()
