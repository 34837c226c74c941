"""The dispatch of requests to Job Runners: new requests at once, all others in rounds.

An assignment is committed before its runner is told. Requests of a runner whose lease has expired are taken
over: they continue from their records.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
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
    from spincycle_grpc.v1.audit_pb2 import AuditEvent
    from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
    from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

ROUND_SIZE = 200
"""The maximum number of suspended requests, and of lost requests, in one round."""

FORGET_SIZE = 500
"""The maximum number of expired idempotency keys that one transaction deletes."""

FORGET_TIMES = 100
"""Transactions that delete keys in a round: enough for the Create calls between two rounds."""

RELEASED_PER_DELIVERY = 0.5
"""Create calls released per delivery while requests are PENDING; below 1, so that the backlog shrinks."""

_Read = TypeVar("_Read")


class Dispatcher:
    """Chooses runners for requests, assigns the requests, and delivers their chains.

    Args:
        store: Where assignments are written.
        runners: The runners to choose from.
        interval: Seconds between two rounds.
        suspended_timeout: Seconds after which a suspended request fails if nobody has resumed it.
        max_waiting: How many requests may be PENDING.
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
        self._pending = PendingRequests(store, self._dispatch_pending, limit=max_waiting, interval=interval)
        self._delivery = Delivery(
            store, runners, self._pending, on_room=self._release_creates, on_runner_gone=self.wake
        )
        self._slot_queue = SlotQueue()
        self._wake = asyncio.Event()

    def check_limit(self) -> None:
        """Checks that one more request may be created.

        Raises:
            ResourceExhaustedError: The limit of PENDING requests is reached. Reason: TOO_MANY_WAITING.
        """
        self._pending.check_limit()

    async def pick_runner(self) -> RunnerInfo | None:
        """Returns the runner for a new request; None if the request must be PENDING.

        Waits briefly first if a runner is free, but no delivery slot is free or other requests are PENDING.
        """
        if (self._pending.any or not self._delivery.has_room) and self._runners.any_free:
            await self._slot_queue.wait()
        return None if self._pending.any else self._pick()

    def deliver(self, runner: RunnerInfo, assignment: Assignment, job_chain: JobChain) -> None:
        """Delivers the chain of a new request in the background. It is assigned to the runner already."""
        self._delivery.send(runner, assignment, job_chain)

    def add_pending(self) -> None:
        """Counts a new request that is PENDING in the database."""
        self._pending.add()

    def chains_ended(self, runner_id: str, chains: int) -> None:
        """Counts chains of a runner that have ended, once the runner knows that they are committed."""
        if self._runners.chains_ended(runner_id, chains):
            self._pending.wake()

    async def start(self, request_id: str, event: AuditEvent | None = None) -> None:
        """Assigns a PENDING request, and delivers its chain before it returns.

        Args:
            request_id: The request.
            event: The audit event of the call, which is stored with the assignment.

        Raises:
            NotFoundError: There is no such request.
            FailedPreconditionError: It is not PENDING.
            UnavailableError: No live runner has room.
        """
        request = await self._store.get_request(request_id, with_job_chain=True)
        if State(request.state) is not State.PENDING:
            raise wrong_state(request_id, request.state, State.PENDING)
        runner = self._runners.pick()
        if runner is None:
            if await self._store.release(request_id, event):
                self._pending.add()
            raise UnavailableError(
                "no job runner is alive and has room: the request starts when a runner has room",
                reason="NO_JOB_RUNNER",
                request_id=request_id,
            )
        assignment = await self._store.assign(request_id, runner, expected_state=State.PENDING, event=event)
        if assignment is None:
            request = await self._store.get_request(request_id, with_job_chain=False)
            raise wrong_state(request_id, request.state, State.PENDING)
        await self._delivery.deliver(runner, assignment, request.job_chain)

    def recover_soon(self, lost: Assignment, token: int) -> None:
        """In the background, takes over a request that its runner says it does not have.

        If no delivery slot is free, nothing happens: the runner's next list of chains shows it again.

        Args:
            lost: The assignment.
            token: The renewal that came with the runner's list of chains. The request is taken over only if
                this is still the runner's newest renewal.
        """

        async def recover() -> None:
            try:
                await self._recover(lost, token)
            except SpinCycleError as error:
                logger.warning("request not taken over", request_id=lost.request_id, error=str(error))

        self._delivery.try_in_background(recover)

    def try_in_background(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Starts work that calls a runner in the background. Does nothing if no delivery slot is free."""
        self._delivery.try_in_background(work)

    def wake(self) -> None:
        """Starts the next round now, for example because a new runner reports."""
        self._wake.set()
        self._pending.wake()

    async def run(self) -> None:
        """Dispatches pending, suspended and lost requests until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pending.run())
            both.create_task(self._run_rounds())

    async def close(self) -> None:
        """Cancels all deliveries. The assignments stand."""
        await self._delivery.close()

    def _release_creates(self) -> None:
        self._slot_queue.release(RELEASED_PER_DELIVERY if self._pending.any else 1.0)

    def _pick(self) -> RunnerInfo | None:
        return self._runners.pick() if self._delivery.has_room else None

    async def _dispatch_pending(self, request_ids: Sequence[str]) -> int:
        """Assigns PENDING requests, all at once. Returns how many got a runner."""
        pairs: list[tuple[str, RunnerInfo]] = []
        for request_id in request_ids[: self._delivery.free_slots]:
            runner = self._pick()
            if runner is None:
                break
            pairs.append((request_id, runner))
        await asyncio.gather(*(self._assign_pending(request_id, runner) for request_id, runner in pairs))
        return len(pairs)

    async def _assign_pending(self, request_id: str, runner: RunnerInfo) -> None:
        try:
            assignment = await self._store.assign(request_id, runner, expected_state=State.PENDING)
            if assignment is not None:
                job_chain = await self._read(assignment, self._store.get_job_chain(request_id))
                if job_chain is not None:
                    self._delivery.send(runner, assignment, job_chain)
        except SpinCycleError as error:  # If it was assigned, its runner will report it as missing.
            logger.warning("pending request not dispatched", request_id=request_id, error=str(error))

    async def _run_rounds(self) -> None:
        while True:
            has_more = False
            try:
                await self._runners.refresh()
                has_more = await self._round()
                await self._forget_keys()
            except SpinCycleError as error:
                logger.warning("dispatch round failed", error=str(error), reason=error.reason)
            except Exception as error:  # The next round may succeed. Without rounds, nothing is recovered.
                logger.error("dispatch round raised an unexpected exception", exc_info=error)
            if has_more:
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._interval)
            self._wake.clear()

    async def _round(self) -> bool:
        """Dispatches suspended and lost requests. Returns whether there may be more."""
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
            if not await self._recover(lost):
                return False
        return ROUND_SIZE in (len(suspended), len(all_lost))

    async def _forget_keys(self) -> None:
        """Deletes expired idempotency keys in small transactions, up to a limit."""
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
            await self._continue_from_record(runner, assignment)
        elif found:
            self._delivery.send_suspended(runner, assignment, found[0])

    async def _suspended(self, request_id: str) -> list[SuspendedJobChain]:
        suspended = await self._store.get_suspended(request_id)
        return [] if suspended is None else [suspended]

    async def _read(self, assignment: Assignment, reading: Awaitable[_Read]) -> _Read | None:
        """Reads data of an assigned request. If the data is missing or broken, fails it and returns None."""
        try:
            return await reading
        except (InvalidArgumentError, NotFoundError) as error:
            logger.error("request cannot be read", request_id=assignment.request_id, error=str(error))
            await self._store.end_assignment(assignment, State.FAIL)
            return None

    async def _recover(self, lost: Assignment, token: int | None = None) -> bool:
        """Takes over a request whose runner is gone, or does not have it. Returns whether a runner was free.

        The record is read after the new assignment is committed. So it includes every accepted report of the
        old runner.
        """
        runner = self._pick()
        if runner is None:
            return False
        assignment = await self._store.assign(
            lost.request_id, runner, expected_state=State.RUNNING, expected_epoch=lost.epoch, token=token
        )
        if assignment is not None:
            logger.warning("request taken over", request_id=lost.request_id, epoch=assignment.epoch)
            await self._continue_from_record(runner, assignment)
        return True

    async def _continue_from_record(self, runner: RunnerInfo, assignment: Assignment) -> None:
        """Rebuilds the chain of a request from its record, and delivers it or ends the request."""
        record = await self._read(assignment, self._store.get_record(assignment.request_id))
        if record is None:
            return
        try:
            suspended, stopped = await asyncio.to_thread(recovered, record)
        except InvalidArgumentError as error:
            logger.error("request cannot be continued", request_id=assignment.request_id, error=str(error))
            await self._store.end_assignment(assignment, State.FAIL)
            return
        if stopped is not None:
            await self._store.end_assignment(assignment, stopped, suspended.job_chain.finished_jobs)
        else:
            self._delivery.send_suspended(runner, assignment, suspended)
