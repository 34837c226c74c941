"""The delivery of assigned job chains to runners, in the background and up to a limit.

A runner that does not answer may still have the chain. So the chain is sent again, which is safe, until the
runner's lease expires. Only a runner that refuses the chain loses the assignment.

A late delivery, for example by a process that was frozen, is harmless: a runner asks whether its assignment
still stands before it runs a job.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from spincycle_grpc.backoff import Backoff
from spincycle_grpc.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
    SpinCycleError,
    UnauthenticatedError,
)
from spincycle_grpc.state import State
from spincycle_grpc.trace_context import TraceContext
from spincycle_server.request_manager.chain_messages import first_chain, resumed_chain
from spincycle_server.telemetry.limits import DELIVERED_JOBS, DELIVERIES, LimitUse
from spincycle_server.telemetry.spans_of_requests import EPOCH, RUNNER_ID

if TYPE_CHECKING:
    from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
    from spincycle_grpc.v1.job_runner_pb2 import Suspect
    from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
    from spincycle_server.request_manager.pending_requests import PendingRequests
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store
    from spincycle_server.telemetry.spans_of_requests import RequestSpans

logger = structlog.get_logger(__name__)

MAX_IN_FLIGHT = 1000
"""The maximum number of chains in flight to all runners. If it is reached, requests stay PENDING."""

MAX_IN_FLIGHT_JOBS = 200_000
"""The maximum number of jobs in the chains in flight, because a chain may be large."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
"""Seconds between two attempts to deliver a chain."""


class _Outcome(enum.Enum):
    """The result of one attempt to deliver a chain."""

    ACCEPTED = enum.auto()  # the runner has the chain
    REFUSED = enum.auto()  # the runner does not have it, and the assignment has ended
    UNANSWERED = enum.auto()  # the runner may have it


@dataclass(slots=True)
class _AssignedChain:
    """A chain to deliver.

    Attributes:
        runner: The runner that the chain is assigned to.
        assignment: The assignment.
        state_before: The state of the request before it was assigned.
        message: The serialized AssignedJobChain.
        trace: The trace that the request belongs to, if any.
    """

    runner: RunnerInfo
    assignment: Assignment
    state_before: State
    message: bytes
    trace: TraceContext | None = None

    @property
    def log_fields(self) -> dict[str, str]:
        return {"request_id": self.assignment.request_id, "runner_id": self.runner.runner_id}


class Delivery:
    """The chains in flight to runners.

    Args:
        store: Where assignments end if a runner refuses the chain.
        runners: How runners are called.
        pending: Is told of requests that are PENDING again, and of room for more of them.
        on_room: Is called when a delivery has ended and one more chain may be in flight.
        on_runner_gone: Is called when a runner is gone or drains: its chains need other runners.
        spans: Records spans of requests; None to record none.
    """

    def __init__(
        self,
        store: Store,
        runners: Runners,
        pending: PendingRequests,
        *,
        on_room: Callable[[], None],
        on_runner_gone: Callable[[], None],
        spans: RequestSpans | None = None,
    ) -> None:
        self._store = store
        self._runners = runners
        self._pending = pending
        self._on_room = on_room
        self._on_runner_gone = on_runner_gone
        self._spans = spans
        self._in_flight: dict[asyncio.Future[Any], int] = {}
        self._in_flight_jobs = 0
        self._is_closed = False

    @property
    def free_slots(self) -> int:
        """How many more chains may be in flight, not counting their jobs."""
        return max(0, MAX_IN_FLIGHT - len(self._in_flight))

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limits of chains and jobs in flight, and how many there are."""
        return (
            LimitUse(DELIVERIES, MAX_IN_FLIGHT, len(self._in_flight)),
            LimitUse(DELIVERED_JOBS, MAX_IN_FLIGHT_JOBS, self._in_flight_jobs),
        )

    @property
    def has_room(self) -> bool:
        """Whether one more chain may be in flight."""
        return len(self._in_flight) < MAX_IN_FLIGHT and self._in_flight_jobs < MAX_IN_FLIGHT_JOBS

    @property
    def _is_half_empty(self) -> bool:
        """Whether at most half of each limit is used."""
        return len(self._in_flight) <= MAX_IN_FLIGHT // 2 and self._in_flight_jobs <= MAX_IN_FLIGHT_JOBS // 2

    def send(self, runner: RunnerInfo, assignment: Assignment, job_chain: JobChain) -> None:
        """Delivers a new chain in the background. It is assigned to the runner already.

        Runners accept nearly all chains, so there is no task until one refuses a chain or does not answer.
        """
        chain = _new_chain(runner, assignment, job_chain)
        jobs = len(job_chain.jobs)
        if self._spans is not None and chain.trace is not None:
            self._background(self._deliver(chain), jobs)
            return
        learned = self._runners.learned_places(runner.runner_id)
        outcome = asyncio.ensure_future(self._runners.start_job_chain(runner, chain.message))
        self._count(outcome, jobs)
        outcome.add_done_callback(partial(self._answered, chain, learned))

    def send_suspended(
        self,
        runner: RunnerInfo,
        assignment: Assignment,
        suspended: SuspendedJobChain,
        suspect: Suspect | None = None,
    ) -> None:
        """Delivers a chain to continue, in the background. It is assigned to the runner already.

        Args:
            runner: The runner.
            assignment: The assignment.
            suspended: The chain.
            suspect: Set if the runner that had the chain before died.
        """
        jobs = len(suspended.job_chain.jobs)
        chain = _AssignedChain(
            runner,
            assignment,
            State.SUSPENDED,
            resumed_chain(assignment, suspended, suspect),
            TraceContext.of(suspended.job_chain),
        )
        self._background(self._deliver_suspended(chain), jobs)

    def try_in_background(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Starts work that calls a runner in the background. Does nothing if no slot is free."""
        if self.free_slots:
            self._background(work())

    async def deliver(self, runner: RunnerInfo, assignment: Assignment, job_chain: JobChain) -> None:
        """Delivers a new chain. Returns when the runner has accepted or refused it, or is gone."""
        chain = _new_chain(runner, assignment, job_chain)
        del job_chain  # It may be large, and the runner may take long to answer.
        await self._deliver(chain)

    async def close(self) -> None:
        """Cancels all deliveries. The assignments stand."""
        self._is_closed = True
        for work in self._in_flight:
            work.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)

    def _background(self, work: Coroutine[object, object, object], jobs: int = 0) -> None:
        task = asyncio.create_task(work)
        self._count(task, jobs)
        task.add_done_callback(self._landed)

    def _count(self, work: asyncio.Future[Any], jobs: int) -> None:
        self._in_flight[work] = jobs
        self._in_flight_jobs += jobs

    def _answered(self, chain: _AssignedChain, learned: int, outcome: asyncio.Future[None]) -> None:
        """Takes in the answer to the first attempt to deliver a new chain."""
        error = None if outcome.cancelled() else outcome.exception()
        if error is not None and not self._is_closed:  # An error may have arrived just before the end.
            jobs = self._in_flight.pop(outcome)
            self._in_flight_jobs -= jobs
            self._background(self._deliver_after(error, chain, learned), jobs)
            return
        if error is None and not outcome.cancelled():
            _log_accepted(chain)
        self._landed(outcome)

    def _landed(self, work: asyncio.Future[Any]) -> None:
        was_half_empty = self._is_half_empty
        self._in_flight_jobs -= self._in_flight.pop(work)
        # Each wake reads PENDING requests from the store, so the loop is not woken for each free slot.
        if self._pending.any and self._is_half_empty and not was_half_empty:
            self._pending.wake()
        if self.has_room:
            self._on_room()
        if not work.cancelled() and (error := work.exception()) is not None:
            _log_failure(error)

    async def _deliver_suspended(self, chain: _AssignedChain) -> None:
        if await self._deliver(chain):
            await self._store.drop_suspended(chain.assignment)

    async def _deliver(self, chain: _AssignedChain) -> bool:
        """Tries until the runner accepts or refuses the chain, or is gone. Returns whether it accepted."""
        if self._spans is None or chain.trace is None:
            return await self._deliver_untraced(chain)
        started_at = time.time_ns()
        is_accepted = await self._deliver_untraced(chain)
        self._spans.within(
            "deliver",
            chain.assignment.request_id,
            chain.trace,
            started_at,
            {EPOCH: chain.assignment.epoch, RUNNER_ID: chain.runner.runner_id},
            has_failed=not is_accepted,
        )
        return is_accepted

    async def _deliver_untraced(self, chain: _AssignedChain) -> bool:
        return await self._deliver_until_answered(chain, await self._attempt(chain, may_have_run=False))

    async def _deliver_after(self, error: BaseException, chain: _AssignedChain, learned: int) -> None:
        """Takes in the error of the first attempt to deliver a chain, and tries further if need be."""
        outcome = await self._failed(error, chain, learned, may_have_run=False)
        await self._deliver_until_answered(chain, outcome)

    async def _deliver_until_answered(self, chain: _AssignedChain, outcome: _Outcome) -> bool:
        if outcome is not _Outcome.UNANSWERED:
            return outcome is _Outcome.ACCEPTED
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while outcome is _Outcome.UNANSWERED:
            await asyncio.sleep(backoff.next())
            if not await self._can_retry(chain):
                return False
            outcome = await self._attempt(chain, may_have_run=True)
        return outcome is _Outcome.ACCEPTED

    async def _attempt(self, chain: _AssignedChain, *, may_have_run: bool) -> _Outcome:
        """Delivers a chain once, and ends its assignment if the runner refuses it.

        Args:
            chain: The chain.
            may_have_run: Whether an earlier attempt got no answer, so that the runner may run the chain.
        """
        learned = self._runners.learned_places(chain.runner.runner_id)
        try:
            await self._runners.start_job_chain(chain.runner, chain.message)
        except SpinCycleError as error:
            return await self._failed(error, chain, learned, may_have_run=may_have_run)
        _log_accepted(chain)
        return _Outcome.ACCEPTED

    async def _failed(
        self, error: BaseException, chain: _AssignedChain, learned: int, *, may_have_run: bool
    ) -> _Outcome:
        """Takes in the error of an attempt, and ends the assignment if the runner has refused the chain.

        Args:
            error: The error.
            chain: The chain.
            learned: How many places of the runner were known before the attempt.
            may_have_run: See `_attempt`.
        """
        match error:
            case InvalidArgumentError():
                logger.error("runner refused the chain as invalid", error=str(error), **chain.log_fields)
                await self._store.end_assignment(chain.assignment, State.FAIL)
            case UnauthenticatedError() | PermissionDeniedError():
                logger.error(
                    "runner does not accept this Request Manager", error=str(error), **chain.log_fields
                )
                self._runners.mark_denied(chain.runner.runner_id)
                if may_have_run:
                    return _Outcome.UNANSWERED
                await self._take_back(chain, error, may_have_run=False)
            case FailedPreconditionError() | ResourceExhaustedError():
                if error.reason == "TOO_MANY_CHAINS":
                    self._runners.mark_full(chain.runner.runner_id, learned)
                else:
                    self._runners.not_used(chain.runner)
                await self._take_back(chain, error, may_have_run=may_have_run)
            case SpinCycleError():
                logger.warning("runner does not answer", error=str(error), **chain.log_fields)
                if may_have_run or error.reason != "SHUTTING_DOWN":
                    return _Outcome.UNANSWERED
                self._runners.drain(chain.runner.runner_id)
                await self._store.unassign(chain.assignment, chain.state_before)
                self._on_runner_gone()
            case _:
                raise error
        return _Outcome.REFUSED

    async def _take_back(self, chain: _AssignedChain, error: SpinCycleError, *, may_have_run: bool) -> None:
        """Ends the assignment of a chain that the runner did not take, so that another runner gets it."""
        is_full = error.reason == "TOO_MANY_CHAINS"
        write = logger.debug if is_full else logger.warning
        write("runner did not take the chain", error=str(error), **chain.log_fields)
        if error.reason == "OTHER_RUNNER":
            await self._store.remove_runner(chain.runner.runner_id)
            self._runners.remove(chain.runner.runner_id)
        # A chain that may have run continues from its record, never from the start.
        await self._store.unassign(chain.assignment, State.RUNNING if may_have_run else chain.state_before)
        if chain.state_before is State.PENDING and not may_have_run:
            self._pending.add()
        if is_full:
            self._pending.wake()  # It may have to open a stream on which the runner offers places.

    async def _can_retry(self, chain: _AssignedChain) -> bool:
        """Whether the assignment still stands and its runner is alive."""
        if not await self._stands(chain.assignment):
            logger.info("request has another assignment or has ended", **chain.log_fields)
            return False
        if self._runners.get(chain.runner.runner_id) is None:
            logger.warning("runner is gone", **chain.log_fields)
            self._on_runner_gone()  # The request is taken over, because its runner may have had it.
            return False
        return True

    async def _stands(self, assignment: Assignment) -> bool:
        """Whether a request still has an assignment. True if the database does not answer."""
        try:
            holder = await self._store.get_assignment(assignment.request_id)
        except SpinCycleError:
            return True
        return holder is not None and holder[0].epoch == assignment.epoch


def _new_chain(runner: RunnerInfo, assignment: Assignment, job_chain: JobChain) -> _AssignedChain:
    return _AssignedChain(
        runner,
        assignment,
        State.PENDING,
        first_chain(assignment.epoch, job_chain),
        TraceContext.of(job_chain),
    )


def _log_accepted(chain: _AssignedChain) -> None:
    logger.debug("request started", epoch=chain.assignment.epoch, **chain.log_fields)


def _log_failure(error: BaseException) -> None:
    """Logs why a delivery ended early. The assignment stands, so the request is taken over if need be."""
    if isinstance(error, SpinCycleError):  # For example, the database is away.
        logger.warning("delivery failed", reason=error.reason, error=error.message)
    else:
        logger.error("delivery failed", exc_info=error)
