"""Telling runners, in the background, of the requests that are assigned to them, so many at a time.

A runner that does not answer may have taken the chain all the same, so it is told again, which is
safe, for as long as its lease lasts; only a runner that says no loses the assignment.

What is told late, by a process that was frozen, does no harm: a runner asks whether an assignment
stands before it runs anything of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.backoff import Backoff
from spincycle_grpc.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    ResourceExhaustedError,
    SpinCycleError,
)
from spincycle_grpc.state import State
from spincycle_server.request_manager.chain_messages import new_chain, resumed_chain

if TYPE_CHECKING:
    from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
    from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
    from spincycle_server.request_manager.pending_requests import PendingRequests
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

MAX_IN_FLIGHT = 1000
"""Chains on their way to runners at a time; more requests wait as PENDING."""

MAX_IN_FLIGHT_JOBS = 200_000
"""Jobs of these chains, since a chain may be large."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class Delivery:
    """What is on its way to runners.

    Args:
        store: Where assignments end that no runner takes.
        runners: How runners are told.
        waiting: Hears of requests that wait again, and of room for more of them.
        on_sent: Is called when there is a place again.
        on_gone: Is called when a runner is gone or leaves: others must take what it does not have.
    """

    def __init__(
        self,
        store: Store,
        runners: Runners,
        waiting: PendingRequests,
        *,
        on_sent: Callable[[], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._store = store
        self._runners = runners
        self._waiting = waiting
        self._on_sent = on_sent
        self._on_gone = on_gone
        self._sending: dict[asyncio.Task[None], int] = {}
        self._sending_jobs = 0

    @property
    def places(self) -> int:
        """How many more may be on their way."""
        return max(0, MAX_IN_FLIGHT - len(self._sending))

    @property
    def has_room(self) -> bool:
        """Whether one more chain may be on its way."""
        return len(self._sending) < MAX_IN_FLIGHT and self._sending_jobs < MAX_IN_FLIGHT_JOBS

    @property
    def _has_much_room(self) -> bool:
        """Whether it is worth a look at what waits: so often that none waits long, and not for each place."""
        return len(self._sending) <= MAX_IN_FLIGHT // 2 and self._sending_jobs <= MAX_IN_FLIGHT_JOBS // 2

    def send(self, runner: RunnerInfo, assignment: Assignment, job_chain: JobChain) -> None:
        """Tells a runner, in the background, of a new request that is assigned to it already."""
        self._background(self.deliver(runner, assignment, job_chain), len(job_chain.jobs))

    def send_suspended(
        self, runner: RunnerInfo, assignment: Assignment, suspended: SuspendedJobChain
    ) -> None:
        """Tells a runner, in the background, of a request to go on with that is assigned to it already."""
        jobs = len(suspended.job_chain.jobs)
        self._background(self._deliver_suspended(runner, assignment, suspended), jobs)

    def try_in_background(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Does work that ends in telling a runner something; if too much is on its way, it is not done."""
        if self.places:
            self._background(work())

    async def deliver(self, runner: RunnerInfo, assignment: Assignment, job_chain: JobChain) -> None:
        """As `send`, but returns when the runner has said yes or no, or is gone."""
        chain = new_chain(assignment.epoch, job_chain)
        del job_chain  # It may be large, and the runner may not answer for long.
        await self._deliver(runner, assignment, State.PENDING, chain)

    async def close(self) -> None:
        """Gives up what is on its way; the assignments stand."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    def _background(self, sending: Coroutine[object, object, None], jobs: int = 0) -> None:
        task = asyncio.create_task(sending)
        self._sending[task] = jobs
        self._sending_jobs += jobs
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        had_room = self._has_much_room
        self._sending_jobs -= self._sending.pop(task)
        if self._waiting.any and self._has_much_room and not had_room:
            self._waiting.wake()
        if self.has_room:
            self._on_sent()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("sending a chain failed", exc_info=error)

    async def _deliver_suspended(
        self, runner: RunnerInfo, assignment: Assignment, suspended: SuspendedJobChain
    ) -> None:
        chain = resumed_chain(assignment.epoch, suspended)
        del suspended
        if await self._deliver(runner, assignment, State.SUSPENDED, chain):
            await self._store.drop_suspended(assignment)

    async def _deliver(
        self, runner: RunnerInfo, assignment: Assignment, state_before: State, chain: bytes
    ) -> bool:
        """Tells the runner until it says yes or no, or is gone. Returns whether it said yes."""
        names = {"request_id": assignment.request_id, "runner_id": runner.runner_id}
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        doubtful = False  # whether it may have the chain, though it did not say so
        while True:
            try:
                await self._runners.start_job_chain(runner, chain)
            except InvalidArgumentError as error:
                logger.error("runner refused the chain", error=str(error), **names)
                await self._store.end_assignment(assignment, State.FAIL)
                return False
            except (FailedPreconditionError, ResourceExhaustedError) as error:
                is_full = error.reason == "TOO_MANY_CHAINS"
                write = logger.debug if is_full else logger.warning
                write("runner did not take the chain", error=str(error), **names)
                if is_full:
                    self._runners.full.refused(runner.runner_id)
                if error.reason == "OTHER_RUNNER":
                    await self._store.remove_runner(runner.runner_id)
                    self._runners.remove(runner.runner_id)
                # What may have run before goes on from its record, not from where it was.
                await self._store.unassign(assignment, State.RUNNING if doubtful else state_before)
                if state_before is State.PENDING and not doubtful:
                    self._waiting.added()
                return False
            except SpinCycleError as error:
                logger.warning("runner does not answer", error=str(error), **names)
                if error.reason == "SHUTTING_DOWN" and not doubtful:
                    self._runners.drain(runner.runner_id)
                    await self._store.unassign(assignment, state_before)
                    self._on_gone()
                    return False
                doubtful = True
            else:
                logger.debug("request started", epoch=assignment.epoch, **names)
                return True
            await asyncio.sleep(backoff.next())
            if not await self._stands(assignment):
                logger.info("request has moved on", **names)
                return False
            if self._runners.get(runner.runner_id) is None:
                logger.warning("runner is gone", **names)
                self._on_gone()  # The request is taken over: its runner may have had it after all.
                return False

    async def _stands(self, assignment: Assignment) -> bool:
        """Whether a request still has an assignment, as far as the database can tell now."""
        try:
            holder = await self._store.get_assignment(assignment.request_id)
        except SpinCycleError:
            return True
        return holder is not None and holder[0].epoch == assignment.epoch
