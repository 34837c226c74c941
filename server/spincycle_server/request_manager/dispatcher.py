"""Handing requests to Job Runners: new ones at once, waiting, suspended and lost ones in rounds.

What is promised to a runner is written in the database first (the assignment), and told to the
runner after that. One that is gone has its requests taken over from where their records say that
they are.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar

import structlog

from spincycle_grpc.errors import InvalidArgumentError, NotFoundError, SpinCycleError, UnavailableError
from spincycle_grpc.state import State
from spincycle_server.request_manager.delivery import Delivery
from spincycle_server.request_manager.pending_requests import PendingRequests
from spincycle_server.request_manager.recovery import recovered
from spincycle_server.request_manager.slot_queue import SlotQueue
from spincycle_server.store.errors import wrong_state

if TYPE_CHECKING:
    from spincycle_grpc.v1.job_pb2 import SuspendedJobChain
    from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

ROUND_SIZE = 200
"""Suspended requests, and lost ones, that one round takes up."""

FORGET_SIZE = 500
"""Idempotency keys that are forgotten in one transaction."""

FORGET_TIMES = 100
"""Such transactions in a round: more keys than can be made in the time of one."""

LET_IN = 0.5
"""New requests for each that is on its way, while others wait: so these become fewer."""

_Read = TypeVar("_Read")


class Dispatcher:
    """Gives requests to runners.

    Args:
        store: Where assignments are written.
        runners: The runners to choose from.
        interval: Seconds between rounds.
        suspended_timeout: Seconds after which a suspended request that nobody resumed fails.
        max_waiting: As many requests may wait for a runner.

    Attributes:
        delivery: What is on its way to runners.
    """

    def __init__(
        self,
        store: Store,
        runners: Runners,
        *,
        interval: float,
        suspended_timeout: float,
        max_waiting: int = 10_000,
    ) -> None:
        self._store = store
        self._runners = runners
        self._interval = interval
        self._suspended_timeout = suspended_timeout
        self._waiting = PendingRequests(store, self._give_out, limit=max_waiting, interval=interval)
        self.delivery = Delivery(store, runners, self._waiting, on_sent=self._sent, on_gone=self.wake)
        self._slot_queue = SlotQueue()
        self._wake = asyncio.Event()

    def check_room(self) -> None:
        """Does nothing while one more request may be made.

        Raises:
            ResourceExhaustedError: As many wait for a runner as may.
        """
        self._waiting.check()

    async def pick(self) -> RunnerInfo | None:
        """Returns the runner for the next new request; None when it has to wait, behind others perhaps.

        Where it is not for want of runners that it would have to wait, it first waits here for a moment.
        """
        if (self._waiting.any or not self.delivery.has_room) and self._runners.any_free:
            await self._slot_queue.wait()
        return None if self._waiting.any else self._pick()

    def _sent(self) -> None:
        self._slot_queue.let_go_on(LET_IN if self._waiting.any else 1.0)

    def waits(self) -> None:
        """Tells that a new request has to wait, and is in the database."""
        self._waiting.added()

    def freed(self, runner_id: str, chains: int) -> None:
        """Tells that chains of a runner have ended, and that it knows."""
        if self._runners.full.freed(runner_id, chains):
            self._waiting.wake()

    def _pick(self) -> RunnerInfo | None:
        return self._runners.pick() if self.delivery.has_room else None

    async def start(self, request_id: str) -> None:
        """Assigns a PENDING request and tells its runner, before it returns.

        Raises:
            NotFoundError: There is no such request.
            FailedPreconditionError: It is not PENDING.
            UnavailableError: No runner is alive.
        """
        request = await self._store.get_request(request_id, with_job_chain=True)
        if State(request.state) is not State.PENDING:
            raise wrong_state(request_id, request.state, State.PENDING)
        runner = self._runners.pick()
        if runner is None:
            raise UnavailableError(
                "no job runner is alive and has room: the request starts by itself when one is",
                reason="NO_JOB_RUNNER",
                request_id=request_id,
            )
        assignment = await self._store.assign(request_id, runner, expected_state=State.PENDING)
        if assignment is None:
            request = await self._store.get_request(request_id, with_job_chain=False)
            raise wrong_state(request_id, request.state, State.PENDING)
        await self.delivery.deliver(runner, assignment, request.job_chain)

    def wake(self) -> None:
        """Makes the next round come now, as when a runner has come to life."""
        self._wake.set()
        self._waiting.wake()

    async def run(self) -> None:
        """Gives out what waits, what is suspended and what is lost, for ever. Ends when cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._waiting.run())
            both.create_task(self._go_round())

    async def _go_round(self) -> None:
        while True:
            goes_on = False
            try:
                await self._runners.refresh()
                goes_on = await self._round()
                await self._forget_keys()
            except SpinCycleError as error:
                logger.warning("dispatch round failed", error=str(error), reason=error.reason)
            except Exception as error:  # The next round may go: without rounds nothing is recovered.
                logger.error("dispatch round broke", exc_info=error)
            if goes_on:
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._interval)
            self._wake.clear()

    async def _give_out(self, request_ids: Sequence[str]) -> int:
        """Gives PENDING requests to runners, all at once. Returns for how many there was one."""
        pairs: list[tuple[str, RunnerInfo]] = []
        for request_id in request_ids[: self.delivery.places]:
            runner = self._pick()
            if runner is None:
                break
            pairs.append((request_id, runner))
        await asyncio.gather(*(self._start_waiting(request_id, runner) for request_id, runner in pairs))
        return len(pairs)

    async def _start_waiting(self, request_id: str, runner: RunnerInfo) -> None:
        try:
            assignment = await self._store.assign(request_id, runner, expected_state=State.PENDING)
            if assignment is not None:
                job_chain = await self._read(assignment, self._store.get_job_chain(request_id))
                if job_chain is not None:
                    self.delivery.send(runner, assignment, job_chain)
        except SpinCycleError as error:  # If it is assigned, its runner tells that it lacks it.
            logger.warning("waiting request not given out", request_id=request_id, error=str(error))

    async def _round(self) -> bool:
        """Returns whether there may be more to do at once."""
        for request_id in await self._store.fail_unresumed(self._suspended_timeout):
            logger.warning("request failed: nobody resumed it in time", request_id=request_id)
        suspended = await self._store.suspended_requests(ROUND_SIZE)
        for request_id in suspended:
            runner = self._pick()
            if runner is None:
                return False
            await self._resume(request_id, runner)
        all_lost = await self._store.lost_requests(ROUND_SIZE)
        for lost in all_lost:
            if not await self.recover(lost):
                return False
        return ROUND_SIZE in (len(suspended), len(all_lost))

    async def _forget_keys(self) -> None:
        """Forgets idempotency keys that have expired, in small transactions, and so many at the most."""
        for _ in range(FORGET_TIMES):
            if await self._store.forget_keys(FORGET_SIZE) < FORGET_SIZE:
                return

    async def _resume(self, request_id: str, runner: RunnerInfo) -> None:
        assignment = await self._store.assign(request_id, runner, expected_state=State.SUSPENDED)
        if assignment is None:
            return
        found = await self._read(assignment, self._suspended(request_id))
        if found == []:
            logger.warning("suspended chain is gone: rebuilt from the job log", request_id=request_id)
            await self._go_on(runner, assignment)
        elif found:
            self.delivery.send_suspended(runner, assignment, found[0])

    async def _suspended(self, request_id: str) -> list[SuspendedJobChain]:
        suspended = await self._store.get_suspended(request_id)
        return [] if suspended is None else [suspended]

    async def _read(self, assignment: Assignment, reading: Awaitable[_Read]) -> _Read | None:
        """Returns what is read of an assigned request; fails the request, and returns None, if nobody can."""
        try:
            return await reading
        except (InvalidArgumentError, NotFoundError) as error:
            logger.error("request cannot be read", request_id=assignment.request_id, error=str(error))
            await self._store.end_assignment(assignment, State.FAIL)
            return None

    async def recover(self, lost: Assignment, token: int | None = None) -> bool:
        """Gives a request whose runner is gone or does not have it to another. Returns whether there is one.

        With a token, only if the renewal with which the runner said that it does not have it is its newest.

        Its record is read only when the assignment has changed hands, so that no report that the
        old one still sends can be missing in what is read.
        """
        runner = self._pick()
        if runner is None:
            return False
        assignment = await self._store.assign(
            lost.request_id, runner, expected_state=State.RUNNING, expected_epoch=lost.epoch, token=token
        )
        if assignment is not None:
            logger.warning("request taken over", request_id=lost.request_id, epoch=assignment.epoch)
            await self._go_on(runner, assignment)
        return True

    async def _go_on(self, runner: RunnerInfo, assignment: Assignment) -> None:
        """Goes on with a request from where its record says that it is."""
        record = await self._read(assignment, self._store.get_record(assignment.request_id))
        if record is None:
            return
        try:
            suspended, stopped = await asyncio.to_thread(recovered, record)
        except InvalidArgumentError as error:
            logger.error("request cannot go on", request_id=assignment.request_id, error=str(error))
            await self._store.end_assignment(assignment, State.FAIL)
            return
        if stopped is not None:
            await self._store.end_assignment(assignment, stopped, suspended.job_chain.finished_jobs)
        else:
            self.delivery.send_suspended(runner, assignment, suspended)

    def recover_soon(self, lost: Assignment, token: int) -> None:
        """As `recover`, in the background; if too much is under way, the next look finds it again."""
        self.delivery.try_in_background(lambda: self._recover_alone(lost, token))

    async def _recover_alone(self, lost: Assignment, token: int) -> None:
        try:
            await self.recover(lost, token)
        except SpinCycleError as error:
            logger.warning("request not taken over", request_id=lost.request_id, error=str(error))
