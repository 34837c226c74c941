"""The chains that a runner holds. It holds a chain until the last report of the chain is committed."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import (
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_server.chain import RunningChain
from spincycle_server.job_runner.capacity_streams import CapacityStreams
from spincycle_server.large_work import check_large_room, run_large
from spincycle_server.stopped_tries import remove_stopped_tries
from spincycle_server.telemetry.limits import CHAINS, JOBS, LimitUse
from spincycle_server.telemetry.trace_lines import trace_lines

if TYPE_CHECKING:
    from spincycle_grpc.state import State
    from spincycle_grpc.v1.approval_pb2 import ApprovalOutcome
    from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
    from spincycle_grpc.v1.job_runner_pb2 import Suspect
    from spincycle_grpc.v1.limit_pb2 import SequenceLimitOutcome
    from spincycle_grpc.v1.status_pb2 import JobStatus
    from spincycle_server.job_runner.chain_outputs import ChainOutputs
    from spincycle_server.job_runner.traverser import Traverser

logger = structlog.get_logger(__name__)

LARGE_CHAIN = 500
"""Jobs beyond which a chain is linked in a thread, because it takes longer than a few milliseconds."""


class Chains:
    """The chains of one runner.

    Args:
        runner_id: The id of the runner.
        make_traverser: Makes the traverser of a chain from the chain, its assignment, and what is known of it
            if its runner died.
        max_chains: The maximum number of chains to hold.
        max_jobs: The runner accepts no more chains while its chains have this many jobs or more.

    Attributes:
        capacity: Offers free places to Request Managers.
    """

    def __init__(
        self,
        runner_id: str,
        make_traverser: Callable[[RunningChain, Assignment, Suspect | None], Traverser],
        *,
        max_chains: int,
        max_jobs: int = 200_000,
    ) -> None:
        self._runner_id = runner_id
        self._make_traverser = make_traverser
        self._max_chains = max_chains
        self._max_jobs = max_jobs
        self._jobs = 0
        self._held: dict[str, tuple[Assignment, Traverser]] = {}
        self._starting: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._draining = False
        self._none_left = asyncio.Event()
        self._none_left.set()
        self.capacity = CapacityStreams(lambda: self.room)

    @property
    def room(self) -> int:
        """How many more chains the runner takes, if they have as many jobs as its chains on average."""
        if self._draining:
            return 0
        room = self._max_chains - len(self._held)
        if self._jobs:
            free_jobs = self._max_jobs - self._jobs
            room = min(room, math.ceil(free_jobs * len(self._held) / self._jobs))
        return max(0, room)

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limits of chains and of their jobs, and how many the runner holds."""
        return (
            LimitUse(CHAINS, self._max_chains, len(self._held)),
            LimitUse(JOBS, self._max_jobs, self._jobs),
        )

    def check_runner(self, runner_id: str) -> None:
        """Checks that a call for a runner id is for this runner. An empty id is for any runner.

        Raises:
            FailedPreconditionError: The call is for a runner that had this address before.
        """
        if runner_id not in ("", self._runner_id):
            raise FailedPreconditionError(
                f"this is job runner {self._runner_id}: job runner {runner_id} no longer exists",
                reason="OTHER_RUNNER",
            )

    async def start_new(self, job_chain: JobChain, epoch: int) -> None:
        """Starts a new chain. Does nothing if the runner already holds it.

        Raises:
            InvalidArgumentError: The chain is invalid.
            FailedPreconditionError: The runner holds another assignment of the request.
            ResourceExhaustedError: The runner is full, or too much work waits for its thread.
            UnavailableError: The runner is shutting down.
        """
        await self._start(epoch, job_chain, partial(RunningChain.new, job_chain))

    async def resume(
        self,
        suspended: SuspendedJobChain,
        epoch: int,
        suspect: Suspect | None = None,
        ending: State | None = None,
    ) -> None:
        """Resumes a suspended chain. Does nothing if the runner already holds it.

        Args:
            suspended: The chain.
            epoch: The number of its assignment.
            suspect: Set if the runner that had the chain before died.
            ending: FAIL or STOPPED if the chain only runs the `finally` parts that it owes, and ends so.

        Raises:
            SpinCycleError: As for `start_new`.
        """

        def link() -> RunningChain:
            if not epoch:  # An original, which has no epochs, resumes the chain.
                remove_stopped_tries(suspended, by_original=True)
            return RunningChain.resume(suspended)

        await self._start(epoch, suspended.job_chain, link, suspect, ending)

    def stop(self, request_id: str, *, skip_finally: bool = False) -> None:
        """Tells a chain to stop. Returns at once.

        Args:
            request_id: The request.
            skip_finally: Whether its `finally` parts are stopped too.

        Raises:
            NotFoundError: The runner does not hold the chain.
        """
        held = self._held.get(request_id)
        if held is None:
            raise NotFoundError("traverser not found", reason="JOB_CHAIN_NOT_FOUND", request_id=request_id)
        held[1].stop(skip_finally=skip_finally)

    def holds(self, request_id: str) -> bool:
        """Returns whether the runner holds the chain of a request."""
        return request_id in self._held

    def outputs_of(self, request_id: str, epoch: int, job_id: str) -> ChainOutputs:
        """Returns what the tries of a chain write.

        Raises:
            NotFoundError: The runner does not hold this assignment (JOB_CHAIN_NOT_FOUND), or the chain has no
                such job (JOB_NOT_FOUND).
        """
        traverser = self._traverser_of(request_id, epoch)
        if not traverser.has_job(job_id):
            raise NotFoundError(
                f"job {job_id} not found in request {request_id}",
                reason="JOB_NOT_FOUND",
                request_id=request_id,
            )
        return traverser.outputs

    def pause(self, request_id: str, epoch: int, *, stops_jobs: bool) -> None:
        """Tells a chain to start no further job. Returns at once.

        Args:
            request_id: The request.
            epoch: The number of its assignment.
            stops_jobs: Whether running jobs are told to stop.

        Raises:
            NotFoundError: The runner does not hold this assignment of the chain.
        """
        self._traverser_of(request_id, epoch).pause(stops_jobs=stops_jobs)

    def unpause(self, request_id: str, epoch: int) -> None:
        """Goes on with a chain that was told to pause, if it has not left yet. Returns at once.

        Raises:
            NotFoundError: The runner does not hold this assignment of the chain.
        """
        self._traverser_of(request_id, epoch).unpause()

    def end_approval(self, outcome: ApprovalOutcome) -> None:
        """Ends the wait of a job for an approval, if it waits. Returns at once.

        Raises:
            NotFoundError: The runner does not hold this assignment of the chain.
        """
        self._traverser_of(outcome.request_id, outcome.epoch).end_approval(outcome)

    def approval_ended(self, outcome: ApprovalOutcome) -> None:
        """Ends the wait of a job for an approval, if the runner still holds the chain and the job waits."""
        with contextlib.suppress(NotFoundError):
            self.end_approval(outcome)

    def end_limit_wait(self, outcome: SequenceLimitOutcome) -> None:
        """Ends the wait of a sequence for the keys of its limits, if it waits. Returns at once.

        Raises:
            NotFoundError: The runner does not hold this assignment of the chain.
        """
        self._traverser_of(outcome.request_id, outcome.epoch).end_limit_wait(outcome)

    def limit_wait_ended(self, outcome: SequenceLimitOutcome) -> None:
        """Ends the wait of a sequence for its keys, if the runner still holds the chain and it waits."""
        with contextlib.suppress(NotFoundError):
            self.end_limit_wait(outcome)

    def _traverser_of(self, request_id: str, epoch: int) -> Traverser:
        held = self._held.get(request_id)
        if held is None or held[0].epoch != epoch:
            raise NotFoundError(
                f"this job runner does not hold assignment {epoch} of request {request_id}",
                reason="JOB_CHAIN_NOT_FOUND",
                request_id=request_id,
            )
        return held[1]

    def assignments(self) -> Iterable[Assignment]:
        """Returns the assignments of all held chains: whether they pause, and what they wait for."""
        return [
            Assignment(
                request_id=one.request_id,
                epoch=one.epoch,
                pausing=chain.is_pausing,
                approvals=chain.approvals,
                limit_waits=chain.limit_waits,
            )
            if chain.is_pausing or chain.approvals or chain.limit_waits
            else one
            for one, chain in self._held.values()
        ]

    async def running_jobs(self, request_ids: Collection[str] = ()) -> list[JobStatus]:
        """Returns the running jobs of some chains, or without ids of all chains, the oldest first."""
        ids = self._held.keys() & request_ids if request_ids else list(self._held)
        traversers = [self._held[request_id][1] for request_id in ids]
        statuses = await asyncio.gather(*(traverser.status() for traverser in traversers))
        return sorted((job for jobs in statuses for job in jobs), key=lambda job: job.started_at)

    async def suspend_all(self) -> None:
        """Accepts no more chains, suspends the held chains, and returns when none is left."""
        self._draining = True
        for _, traverser in list(self._held.values()):
            traverser.suspend()
        await self._none_left.wait()

    def suspend_held(self) -> None:
        """Suspends the chains of Request Managers after the runner's lease has expired. Returns at once.

        Another runner may have these chains by now. Otherwise, the next Request Manager that answers
        gets their suspended state.
        """
        for assignment, traverser in list(self._held.values()):
            if assignment.epoch:
                traverser.suspend()

    async def _start(
        self,
        epoch: int,
        job_chain: JobChain,
        link: Callable[[], RunningChain],
        suspect: Suspect | None = None,
        ending: State | None = None,
    ) -> None:
        """Links a chain and starts it. An invalid chain is refused first, even if it is held."""
        if len(job_chain.jobs) <= LARGE_CHAIN:
            self._take_in(link(), epoch, suspect, ending)
            return

        async def start() -> None:
            self._take_in(await run_large(link), epoch, suspect, ending)

        # The caller may give up and call again before the chain is linked. It must not be linked anew then,
        # because no call would ever wait long enough.
        key = (job_chain.request_id, epoch)
        starting = self._starting.get(key)
        if starting is None:
            check_large_room()
            starting = self._starting[key] = asyncio.create_task(start())
            starting.add_done_callback(partial(self._started, key))
        await asyncio.shield(starting)

    def _started(self, key: tuple[str, int], starting: asyncio.Task[None]) -> None:
        del self._starting[key]
        if not starting.cancelled():
            starting.exception()  # Callers that still wait get it.

    def _take_in(
        self, chain: RunningChain, epoch: int, suspect: Suspect | None, ending: State | None
    ) -> None:
        assignment = _assignment_of(chain, epoch)
        if self._admit(assignment):
            self._run(assignment, chain, suspect, ending)

    def _admit(self, assignment: Assignment) -> bool:
        """Returns whether to start a chain; False means that the runner already holds it.

        Drops the chain of an earlier assignment.

        Raises:
            SpinCycleError: The runner must not take the chain, as for `start_new`.
        """
        if self._draining:
            raise UnavailableError("job runner is shutting down", reason="SHUTTING_DOWN")
        held = self._held.get(assignment.request_id)
        if held is None:
            if len(self._held) >= self._max_chains:
                raise ResourceExhaustedError(
                    f"job runner is full with {self._max_chains} chains: try again later",
                    reason="TOO_MANY_CHAINS",
                )
            if self._jobs >= self._max_jobs:
                raise ResourceExhaustedError(
                    f"job runner is full: its chains have {self._max_jobs} jobs or more, try again later",
                    reason="TOO_MANY_CHAINS",
                )
            return True
        if held[0].epoch == assignment.epoch:
            return False
        if held[0].epoch < assignment.epoch:
            held[1].drop("its request has a newer assignment")
        raise FailedPreconditionError(
            f"another assignment of request {assignment.request_id} is still held",
            reason="EARLIER_ASSIGNMENT",
            request_id=assignment.request_id,
        )

    def _run(
        self,
        assignment: Assignment,
        chain: RunningChain,
        suspect: Suspect | None = None,
        ending: State | None = None,
    ) -> None:
        traverser = self._make_traverser(chain, assignment, suspect)
        self._held[assignment.request_id] = (assignment, traverser)
        self._none_left.clear()
        jobs = len(chain.jobs)
        self._jobs += jobs
        self.capacity.taken()
        traverser.start(on_done=lambda: self._drop(assignment, jobs), ending=ending)

    def _drop(self, assignment: Assignment, jobs: int) -> None:
        del self._held[assignment.request_id]
        self._jobs -= jobs
        if not self._held:
            self._none_left.set()
        self.capacity.offer()


def _assignment_of(chain: RunningChain, epoch: int) -> Assignment:
    trace = chain.trace
    if trace is None:
        return Assignment(request_id=chain.request_id, epoch=epoch)
    trace_lines.add(chain.request_id, trace)
    return Assignment(request_id=chain.request_id, epoch=epoch, traceparent=trace.traceparent)
