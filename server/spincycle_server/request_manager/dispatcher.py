"""The dispatch of requests to Job Runners: new requests at once, all others in rounds.

An assignment is committed before its runner is told. Requests of a runner whose lease has expired are taken
over: they continue from their records.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import structlog

from spincycle_grpc.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    SpinCycleError,
    UnavailableError,
)
from spincycle_grpc.job_paths import count_tasks
from spincycle_grpc.state import State
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1 import state_pb2
from spincycle_server.capabilities import NEEDS_NOTHING, WAITS_FOR_LIMIT, Requirement
from spincycle_server.request_manager.delivery import Delivery
from spincycle_server.request_manager.full_runners import PROBE
from spincycle_server.request_manager.pending_requests import PendingRequests
from spincycle_server.request_manager.recovery import recovered
from spincycle_server.request_manager.slot_queue import SlotQueue
from spincycle_server.request_manager.startable_requests import find_startable
from spincycle_server.request_manager.suspects import Suspects
from spincycle_server.store.errors import request_paused, wrong_state
from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import Counters
from spincycle_server.telemetry.spans_of_requests import EPOCH, RUNNER_ID

if TYPE_CHECKING:
    from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
    from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store
    from spincycle_server.store.audit import EventRow
    from spincycle_server.store.leases import LostRequest
    from spincycle_server.store.requirements import WaitingRequest
    from spincycle_server.telemetry.limits import LimitUse
    from spincycle_server.telemetry.spans_of_requests import RequestSpans

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
        max_waiting: How many requests may be PENDING that a runner can run.
        max_blocked: How many requests may be PENDING that no runner can run.
        spans: Records spans of requests; None to record none.

    Attributes:
        takeovers: Counts the requests that were taken over.
        tell_neighbours: Tells the other workers of this server to call `wake`, because runners have changed.
            Does nothing if this process is the only one.
    """

    def __init__(
        self,
        store: Store,
        runners: Runners,
        *,
        interval: float,
        suspended_timeout: float,
        max_waiting: int = 10_000,
        max_blocked: int = 10_000,
        spans: RequestSpans | None = None,
    ) -> None:
        self._store = store
        self._runners = runners
        self._interval = interval
        self._suspended_timeout = suspended_timeout
        self._spans = spans
        self._pending = PendingRequests(
            store,
            runners,
            self._dispatch_pending,
            limit=max_waiting,
            blocked_limit=max_blocked,
            interval=interval,
            others=self._left_for,
        )
        self._delivery = Delivery(
            store,
            runners,
            self._pending,
            on_room=self._release_creates,
            on_runner_gone=self.wake,
            spans=spans,
        )
        runners.on_place = self._pending.wake
        self._slot_queue = SlotQueue()
        self._suspects = Suspects(store, runners)
        self.takeovers = Counters(catalogue.TAKEOVERS)
        self._takeovers = {reason: self.takeovers.of(reason) for reason in ("lease_expired", "not_held")}
        self._wake = asyncio.Event()
        self._assigning: Counter[str] = Counter()  # PENDING requests that have their runner, by its id
        # SUSPENDED and lost requests for which no runner had a place at the last look, by what they need.
        self._left: Counter[Requirement] = Counter()
        self._continuing = asyncio.Lock()
        self.tell_neighbours: Callable[[], None] = lambda: None

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limits of waiting requests and of deliveries, and their use."""
        return [*self._pending.limits(), *self._delivery.limits()]

    @property
    def oldest_waiting(self) -> float:
        """The age in seconds of the oldest request that waits although a runner can run it; 0 without one."""
        return self._pending.oldest_waiting

    def check_limit(self) -> None:
        """Checks that one more request may be created.

        Raises:
            ResourceExhaustedError: The limit of PENDING requests is reached. Reason: TOO_MANY_WAITING.
        """
        self._pending.check_limit()

    def check_blocked_limit(self, requirement: Requirement) -> None:
        """Checks that a request may be created, if no runner can run it now.

        Raises:
            ResourceExhaustedError: The limit of such requests is reached. Reason: TOO_MANY_BLOCKED.
        """
        self._pending.check_blocked_limit(requirement)

    async def pick_runner(self, requirement: Requirement = NEEDS_NOTHING) -> RunnerInfo | None:
        """Returns the runner for a new request; None if the request must be PENDING.

        Waits briefly first if a runner is free, but no delivery slot is free or other requests are PENDING
        for the same runners.
        """
        must_wait = self._pending.compete_with(requirement) or not self._delivery.has_room
        if must_wait and self._runners.any_free(requirement):
            await self._slot_queue.wait()
        return None if self._pending.compete_with(requirement) else self._pick(requirement)

    def deliver(self, runner: RunnerInfo, assignment: Assignment, job_chain: JobChain) -> None:
        """Delivers the chain of a new request in the background. It is assigned to the runner already."""
        self._delivery.send(runner, assignment, job_chain)

    @property
    def may_block(self) -> bool:
        """Whether one more request may wait beside those that runners can run."""
        return self._pending.may_block

    async def created_pending(
        self, request_id: str, requirement: Requirement, *, waits_for_limit: bool
    ) -> str:
        """Counts a new request that is PENDING in the database.

        Args:
            request_id: Its id.
            requirement: What it needs.
            waits_for_limit: Whether it was stored as one that waits for a limit.

        Returns:
            Why it waits, if no runner can run it now; otherwise "".
        """
        waits = await self._why_limited(request_id) if waits_for_limit else ""
        self._pending.add(WAITS_FOR_LIMIT if waits else requirement, request_id)
        if waits or not self._runners.is_blocked(requirement):
            return waits
        return self._runners.why_waiting(State.PENDING, requirement, "")

    async def _why_limited(self, request_id: str) -> str:
        """Returns which limit a new request waits for; "" if it holds its keys meanwhile.

        The request is committed, so its caller gets it even if this cannot be read.
        """
        try:
            return (await self._store.limits.waits([request_id])).get(request_id, "")
        except SpinCycleError:
            return "waits for a limit"

    def needed_places(self, runner_id: str) -> int:
        """Returns how many more places of a full runner the requests need that wait for it here."""
        if not self._delivery.has_room:
            return 0
        waiting = self._pending.demand_for(runner_id) - self._assigning[runner_id]
        return self._runners.needed_places(runner_id, waiting)

    def _left_for(self, runner_id: str) -> int:
        return sum(count for one, count in self._left.items() if runner_id in self._runners.able(one))

    def add_places(self, runner_id: str, places: int, *, spare: int = 0) -> None:
        """Counts places of a runner whose chains have ended, once the runner knows that this is committed.

        Args:
            runner_id: The runner.
            places: How many places.
            spare: How many of them are promised to nobody.
        """
        if self._runners.add_places(runner_id, places, spare=spare):
            self._pending.wake()

    def not_used(self, runner: RunnerInfo) -> None:
        """Gives back the place of a runner that was picked for a request and does not get it."""
        self._runners.not_used(runner)

    async def start(self, request_id: str, event: EventRow | None = None) -> None:
        """Assigns a PENDING request, and delivers its chain before it returns.

        Args:
            request_id: The request.
            event: The audit event of the call, which is stored with the assignment.

        Raises:
            NotFoundError: There is no such request.
            FailedPreconditionError: It is not PENDING (WRONG_STATE), is paused (REQUEST_PAUSED), waits for a
                limit (LIMIT_REACHED), or no runner has what it needs (NO_MATCHING_RUNNER).
            UnavailableError: No live runner has room.
        """
        request = await self._store.get_request(request_id, with_job_chain=True)
        if State(request.state) is not State.PENDING:
            raise wrong_state(request_id, request.state, State.PENDING)
        requirement = await self._store.requirements.of(request_id)
        if requirement == WAITS_FOR_LIMIT:
            raise FailedPreconditionError(
                f"the request {request.waiting or 'waits for a limit'}: it starts by itself",
                reason="LIMIT_REACHED",
                request_id=request_id,
            )
        runner = self._runners.pick(requirement)
        if runner is None:
            if await self._store.release(request_id, event):
                self._pending.add(requirement)
            raise self._not_started(request_id, requirement)
        assignment = await self._store.assign(request_id, runner, expected_state=State.PENDING, event=event)
        if assignment is None:
            self._runners.not_used(runner)
            request = await self._store.get_request(request_id, with_job_chain=False)
            if State(request.state) is State.PENDING:
                raise request_paused(request_id)
            raise wrong_state(request_id, request.state, State.PENDING)
        await self._delivery.deliver(runner, assignment, request.job_chain)

    def _not_started(self, request_id: str, requirement: Requirement) -> SpinCycleError:
        if self._runners.is_blocked(requirement):
            why = self._runners.why_waiting(State.PENDING, requirement, "")
            return FailedPreconditionError(
                f"{why}: the request starts when one does", reason="NO_MATCHING_RUNNER", request_id=request_id
            )
        return UnavailableError(
            "no job runner is alive and has room: the request starts when a runner has room",
            reason="NO_JOB_RUNNER",
            request_id=request_id,
        )

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
                requirement = await self._store.requirements.of(lost.request_id)
                await self._recover(lost, requirement, token)
            except SpinCycleError as error:
                logger.warning("request not taken over", request_id=lost.request_id, error=str(error))

        self._delivery.try_in_background(recover)

    def try_in_background(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Starts work that calls a runner in the background. Does nothing if no delivery slot is free."""
        self._delivery.try_in_background(work)

    def start_pending(self) -> None:
        """Looks for PENDING requests now, because some hold the keys of their limits."""
        self._pending.wake()

    def wake(self) -> None:
        """Starts the next round now, for example because a new runner reports."""
        self._wake.set()
        self._pending.wake()

    def runners_changed(self) -> None:
        """Starts the next round now, also in the other workers, which do not have the runner's stream."""
        self.wake()
        self.tell_neighbours()

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

    def _pick(self, requirement: Requirement) -> RunnerInfo | None:
        return self._runners.pick(requirement) if self._delivery.has_room else None

    async def _dispatch_pending(self, waiting: Sequence[WaitingRequest]) -> Sequence[WaitingRequest]:
        """Assigns PENDING requests, all at once. Returns those that got a runner.

        Before them, requests go on that have begun already: they fail if nobody resumes them in time.
        """
        if any(self._runners.have_room(one) for one in self._left):
            await self._continue_requests()
        pairs: list[tuple[WaitingRequest, RunnerInfo]] = []
        for one in waiting:
            if len(pairs) >= self._delivery.free_slots:
                break
            if (runner := self._pick(one.requirement)) is not None:
                pairs.append((one, runner))
        self._assigning = Counter(runner.runner_id for _, runner in pairs)
        await asyncio.gather(*(self._assign_pending(one, runner) for one, runner in pairs))
        self._assigning.clear()
        return [one for one, _ in pairs]

    async def _assign_pending(self, waiting: WaitingRequest, runner: RunnerInfo) -> None:
        request_id = waiting.request_id
        try:
            assignment = await self._store.assign(request_id, runner, expected_state=State.PENDING)
            if assignment is None:  # Another Request Manager was faster.
                self._runners.not_used(runner)
            else:
                job_chain = await self._read(assignment, self._store.get_job_chain(request_id))
                if job_chain is None:
                    self._runners.not_used(runner)
                else:
                    self._delivery.send(runner, assignment, job_chain)
        except SpinCycleError as error:  # If it was assigned, its runner will report it as missing.
            logger.warning("pending request not dispatched", request_id=request_id, error=str(error))

    async def _run_rounds(self) -> None:
        while True:
            has_more = False
            try:
                if await self._runners.refresh():
                    self._pending.wake()
                has_more = await self._round()
                await self._forget_keys()
            except SpinCycleError as error:
                logger.warning("dispatch round failed", error=str(error), reason=error.reason)
            except Exception as error:  # The next round may succeed. Without rounds, nothing is recovered.
                logger.error("dispatch round raised an unexpected exception", exc_info=error)
            if has_more:
                continue
            pause = min(PROBE, self._interval) if self._left else self._interval
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()

    async def _round(self) -> bool:
        """Dispatches suspended and lost requests. Returns whether there may be more."""
        for request_id in await self._store.fail_unresumed(self._suspended_timeout):
            logger.warning("request failed: nobody resumed it in time", request_id=request_id)
        if self._pending.any_waits_for_limit:
            await self._store.limits.release_ended()
        return await self._continue_requests()

    async def _continue_requests(self) -> bool:
        """Gives suspended and lost requests to runners. Returns whether there may be more."""
        async with self._continuing:
            left: Counter[Requirement] = Counter()
            resumed = await self._resume_suspended(left)
            more_are_lost = await self._recover_lost(left)
            had_left, self._left = bool(self._left), left
        if left and not had_left:
            self._pending.wake()  # It asks full runners for places.
        return more_are_lost or resumed

    async def _resume_suspended(self, left: Counter[Requirement]) -> bool:
        """Resumes the oldest suspended requests that a runner can take. Returns whether there may be more.

        Adds what those need that found no place.
        """
        suspended = await find_startable(self._store, self._runners, State.SUSPENDED, ROUND_SIZE)
        resumed: set[str] = set()
        for one in suspended.requests:
            runner = self._pick(one.requirement)
            if runner is not None:
                resumed.add(one.request_id)
                await self._resume(one.request_id, runner)
        for one in suspended.page.requests:
            if one.request_id not in resumed and not self._runners.is_blocked(one.requirement):
                left[one.requirement] += 1
        return bool(resumed) and not suspended.page.is_last

    async def _recover_lost(self, left: Counter[Requirement]) -> bool:
        """Takes over the oldest lost requests that a runner can take. Returns whether there may be more.

        Adds what those need that found no place.
        """
        unmet: set[str] = set()
        lost_runners: set[str] = set()
        recovered_any = False
        while True:
            page = await self._store.lost_requests(ROUND_SIZE, unmet)
            lost_runners.update(lost.runner_id for lost in page)
            unmet_before = len(unmet)
            recovered_any |= await self._recover_page(page, unmet, left)
            if len(page) < ROUND_SIZE or len(unmet) == unmet_before or not self._delivery.has_room:
                self._runners.mark_lost(frozenset(lost_runners))
                return recovered_any and len(page) == ROUND_SIZE

    async def _recover_page(
        self, page: Sequence[LostRequest], unmet: set[str], left: Counter[Requirement]
    ) -> bool:
        """Takes over lost requests. Returns whether any was. Adds requirements that no runner meets."""
        waiting = await self._store.requirements.resolve([lost.waiting for lost in page])
        requirements = {one.request_id: one.requirement for one in waiting}
        self._runners.ask_about(requirements.values())
        recovered_any = False
        for lost in page:
            requirement = requirements.get(lost.assignment.request_id)
            if requirement is None or requirement.requirement_id in unmet:
                continue
            if await self._recover(lost.assignment, requirement):
                recovered_any = True
            else:
                unmet.add(requirement.requirement_id)
                if not self._runners.is_blocked(requirement):
                    left[requirement] += 1
        return recovered_any

    async def _forget_keys(self) -> None:
        """Deletes expired idempotency keys in small transactions, up to a limit."""
        for _ in range(FORGET_TIMES):
            if await self._store.forget_keys(FORGET_SIZE) < FORGET_SIZE:
                return

    async def _resume(self, request_id: str, runner: RunnerInfo) -> None:
        assignment = await self._store.assign(request_id, runner, expected_state=State.SUSPENDED)
        if assignment is None:
            self._runners.not_used(runner)
            return
        found = await self._read(assignment, self._suspended(request_id))
        if found == []:
            logger.info("request continues from its record", request_id=request_id)
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

    async def _recover(self, lost: Assignment, requirement: Requirement, token: int | None = None) -> bool:
        """Takes over a request whose runner is gone, or does not have it. Returns whether a runner was free.

        The record is read after the new assignment is committed. So it includes every accepted report of the
        old runner.
        """
        runner = self._pick(requirement)
        if runner is None:
            return False
        started_at = time.time_ns()
        assignment = await self._store.assign(
            lost.request_id, runner, expected_state=State.RUNNING, expected_epoch=lost.epoch, token=token
        )
        if assignment is None:
            self._runners.not_used(runner)
        else:
            self._takeovers["lease_expired" if token is None else "not_held"].value += 1
            logger.warning("request taken over", request_id=lost.request_id, epoch=assignment.epoch)
            await self._continue_from_record(runner, assignment, taken_over_at=started_at)
        return True

    async def _continue_from_record(
        self, runner: RunnerInfo, assignment: Assignment, *, taken_over_at: int | None = None
    ) -> None:
        """Rebuilds the chain of a request from its record, and delivers it or ends the request.

        A paused request is SUSPENDED instead, without a runner.

        Args:
            runner: The runner that the request is assigned to.
            assignment: The assignment.
            taken_over_at: When a takeover of the request began, in nanoseconds since the Unix epoch.
        """
        record = await self._read(assignment, self._store.get_record(assignment.request_id))
        if record is None:
            return
        try:
            suspended, ended = await asyncio.to_thread(recovered, record)
        except InvalidArgumentError as error:
            logger.error("request cannot be continued", request_id=assignment.request_id, error=str(error))
            await self._store.end_assignment(assignment, State.FAIL)
            return
        if self._spans is not None and taken_over_at is not None:
            self._spans.within(
                "takeover",
                assignment.request_id,
                TraceContext.of(record.job_chain),
                taken_over_at,
                {EPOCH: assignment.epoch, RUNNER_ID: runner.runner_id},
            )
        if ended is not None:
            job_chain = suspended.job_chain
            _, tasks = await asyncio.to_thread(count_tasks, job_chain)
            await self._store.end_assignment(assignment, ended, job_chain.finished_jobs, tasks)
        elif record.paused:
            await self._store.suspend(assignment.request_id, suspended, epoch=assignment.epoch)
        else:
            if record.ending is not None:  # The request may have been stopped after it was assigned.
                assignment.ending = state_pb2.State.ValueType(record.ending)
            suspect = None if record.suspect is None else await self._suspects.message(record.suspect)
            self._delivery.send_suspended(runner, assignment, suspended, suspect)
