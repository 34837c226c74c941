"""Handing requests to Job Runners: new ones at once, waiting, suspended and lost ones in rounds.

What is promised to a runner is written in the database first (the assignment), and told to the
runner after that. A runner that does not answer may have taken the chain all the same, so it
is told again, which is safe, for as long as its lease lasts; only a runner that says no loses
the assignment, and one that is gone has its requests taken over from where their records say
that they are.

What is told late, by a process that was frozen, does no harm: a runner asks whether an assignment
stands before it runs anything of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine, Sequence
from typing import TYPE_CHECKING, TypeVar

import structlog

from server.request_manager.chain_messages import new_chain, resumed_chain
from server.request_manager.recovery import recovered
from server.request_manager.waiting import WaitingRequests
from spincycle_grpc.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    SpinCycleError,
    UnavailableError,
)
from spincycle_grpc.state import State

if TYPE_CHECKING:
    from server.request_manager.runners import Runners
    from server.store import Store
    from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
    from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo

logger = structlog.get_logger(__name__)

MAX_SENDING = 1000
"""Chains on their way to runners at a time; more requests wait as PENDING."""

MAX_SENDING_JOBS = 200_000
"""Jobs of these chains, since a chain may be large."""

ROUND_SIZE = 200
"""Suspended requests, and lost ones, that one round takes up."""

FORGET_SIZE = 500
"""Idempotency keys that are forgotten in one transaction."""

FORGET_TIMES = 100
"""Such transactions in a round: more keys than can be made in the time of one."""

STOP_TRIES = 3
"""How often a runner is told to stop a request before whoever stopped it is answered."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


_Read = TypeVar("_Read")


class Dispatcher:
    """Gives requests to runners.

    Args:
        store: Where assignments are written.
        runners: The runners to choose from.
        interval: Seconds between rounds.
        suspended_timeout: Seconds after which a suspended request that nobody resumed fails.
        max_waiting: As many requests may wait for a runner.
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
        self._sending: dict[asyncio.Task[None], int] = {}
        self._sending_jobs = 0
        self._waiting = WaitingRequests(store, self._give_out, limit=max_waiting, interval=interval)
        self._wake = asyncio.Event()

    def check_room(self) -> None:
        """Does nothing while one more request may be made.

        Raises:
            ResourceExhaustedError: As many wait for a runner as may.
        """
        self._waiting.check()

    def pick(self) -> RunnerInfo | None:
        """Returns the runner for the next new request; None when it has to wait, behind others perhaps."""
        return None if self._waiting.any else self._pick()

    def waits(self) -> None:
        """Tells that a new request has to wait, and is in the database."""
        self._waiting.added()

    def freed(self, runner_id: str, chains: int) -> None:
        """Tells that chains of a runner have ended, and that it knows."""
        if self._runners.full.freed(runner_id, chains):
            self._waiting.wake()

    def _pick(self) -> RunnerInfo | None:
        has_room = len(self._sending) < MAX_SENDING and self._sending_jobs < MAX_SENDING_JOBS
        return self._runners.pick() if has_room else None

    def send(self, runner: RunnerInfo, assignment: Assignment, job_chain: JobChain) -> None:
        """Tells a runner, in the background, of a request that is assigned to it already."""
        self._background(self._send_new(runner, assignment, job_chain), len(job_chain.jobs))

    async def start(self, request_id: str) -> None:
        """Assigns a PENDING request and tells its runner, before it returns.

        Raises:
            NotFoundError: There is no such request.
            FailedPreconditionError: It is not PENDING.
            UnavailableError: No runner is alive.
        """
        request = await self._store.get_request(request_id, with_job_chain=True)
        if State(request.state) is not State.PENDING:
            raise wrong_state(request_id, State(request.state), State.PENDING)
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
            raise wrong_state(request_id, State(request.state), State.PENDING)
        await self._send_new(runner, assignment, request.job_chain)

    async def stop(self, request_id: str) -> None:
        """Stops a request, or tells its runner to.

        Raises:
            NotFoundError: There is no such request.
            FailedPreconditionError: It has failed.
        """
        told = 0
        while True:
            request = await self._store.get_request(request_id, with_job_chain=False)
            state = State(request.state)
            if state in (State.COMPLETE, State.STOPPED):
                return
            if state in (State.PENDING, State.SUSPENDED):
                if await self._store.stop_unassigned(request_id):
                    return
            elif state == State.RUNNING:
                if await self._store.request_stop(request_id):
                    told += 1
                    if await self._stop_running(request_id) or told == STOP_TRIES:
                        return  # It is to stop, in the database: its runner is told with its next report.
            else:
                raise wrong_state(request_id, state, State.RUNNING)

    async def _stop_running(self, request_id: str) -> bool:
        """Tells the runner of a request to stop it. Returns False when the request has moved on meanwhile.

        That it is to stop is in the database already: whoever takes it over from a runner that is
        gone, or that goes before it has stopped, stops it.
        """
        holder = await self._store.get_assignment(request_id)
        if holder is None:
            return False
        _, runner_id = holder
        runner = self._runners.get(runner_id)
        if runner is None:  # It may have come to life at another Request Manager.
            await self._runners.refresh()
            runner = self._runners.get(runner_id)
        if runner is None:
            self.wake()
            return True
        try:
            await self._runners.stop_job_chain(runner, request_id)
        except NotFoundError:
            # Either the chain is on its way to the runner, or its last report to the database.
            await asyncio.sleep(_FIRST_PAUSE)
            return False
        except SpinCycleError as error:
            logger.warning("runner does not answer", runner_id=runner_id, error=str(error))
            await asyncio.sleep(_FIRST_PAUSE)
            return False
        return True

    def tell_to_stop(self, runner: RunnerInfo, request_id: str) -> None:
        """Tells a runner, in the background and once, to stop a request that it has."""

        async def tell() -> None:
            try:
                await self._runners.stop_job_chain(runner, request_id)
            except SpinCycleError as error:  # It is told again with its next report, if it still has it.
                logger.info("runner did not stop a request", request_id=request_id, error=str(error))

        if len(self._sending) < MAX_SENDING:
            self._background(tell())

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

    async def close(self) -> None:
        """Gives up what is on its way to runners; the assignments stand."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _give_out(self, request_ids: Sequence[str]) -> int:
        """Gives PENDING requests to runners, all at once. Returns for how many there was one."""
        pairs: list[tuple[str, RunnerInfo]] = []
        for request_id in request_ids[: max(0, MAX_SENDING - len(self._sending))]:
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
                    self.send(runner, assignment, job_chain)
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
            self._send_suspended_soon(runner, assignment, found[0])

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
            self._send_suspended_soon(runner, assignment, suspended)

    def recover_soon(self, lost: Assignment, token: int) -> None:
        """As `recover`, in the background; if too much is under way, the next look finds it again."""
        if len(self._sending) < MAX_SENDING:
            self._background(self._recover_alone(lost, token))

    async def _recover_alone(self, lost: Assignment, token: int) -> None:
        try:
            await self.recover(lost, token)
        except SpinCycleError as error:
            logger.warning("request not taken over", request_id=lost.request_id, error=str(error))

    def _send_suspended_soon(
        self, runner: RunnerInfo, assignment: Assignment, suspended: SuspendedJobChain
    ) -> None:
        jobs = len(suspended.job_chain.jobs)
        self._background(self._send_suspended(runner, assignment, suspended), jobs)

    def _background(self, sending: Coroutine[object, object, None], jobs: int = 0) -> None:
        task = asyncio.create_task(sending)
        self._sending[task] = jobs
        self._sending_jobs += jobs
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending_jobs -= self._sending.pop(task)
        if self._waiting.any and len(self._sending) == MAX_SENDING // 2:
            self._waiting.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("sending a chain failed", exc_info=error)

    async def _send_new(self, runner: RunnerInfo, assignment: Assignment, job_chain: JobChain) -> None:
        chain = new_chain(assignment.epoch, job_chain)
        await self._deliver(runner, assignment, State.PENDING, chain)

    async def _send_suspended(
        self, runner: RunnerInfo, assignment: Assignment, suspended: SuspendedJobChain
    ) -> None:
        chain = resumed_chain(assignment.epoch, suspended)
        if await self._deliver(runner, assignment, State.SUSPENDED, chain):
            await self._store.drop_suspended(assignment)

    async def _deliver(
        self, runner: RunnerInfo, assignment: Assignment, state_before: State, chain: bytes
    ) -> bool:
        """Tells the runner until it says yes or no, or is gone. Returns whether it said yes."""
        names = {"request_id": assignment.request_id, "runner_id": runner.runner_id}
        pause = _FIRST_PAUSE
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
                    self.wake()
                    return False
                doubtful = True
            else:
                logger.debug("request started", epoch=assignment.epoch, **names)
                return True
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            if not await self._stands(assignment):
                logger.info("request has moved on", **names)
                return False
            if self._runners.get(runner.runner_id) is None:
                logger.warning("runner is gone", **names)
                self.wake()  # The request is taken over: its runner may have had it after all.
                return False

    async def _stands(self, assignment: Assignment) -> bool:
        """Whether a request still has an assignment, as far as the database can tell now."""
        try:
            holder = await self._store.get_assignment(assignment.request_id)
        except SpinCycleError:
            return True
        return holder is not None and holder[0].epoch == assignment.epoch


def wrong_state(request_id: str, state: State, expected: State) -> FailedPreconditionError:
    """Returns the error for a call on a request in a state that the call does not fit."""
    return FailedPreconditionError(
        f"request in state {state.name}, expected state {expected.name}",
        reason="WRONG_STATE",
        request_id=request_id,
    )
