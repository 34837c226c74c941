"""The chains that a runner holds: from when it takes one to when its last report is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
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

if TYPE_CHECKING:
    from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
    from spincycle_grpc.v1.status_pb2 import JobStatus
    from spincycle_server.job_runner.traverser import Traverser

logger = structlog.get_logger(__name__)


class Chains:
    """The chains of one runner.

    Args:
        runner_id: Who the runner is.
        make_traverser: Makes what runs a chain, from the chain and its assignment.
        max_chains: As many chains are held at once.
        max_jobs: No more chains are taken while those that are held have as many jobs.
    """

    def __init__(
        self,
        runner_id: str,
        make_traverser: Callable[[RunningChain, Assignment], Traverser],
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
        self._draining = False
        self._none_left = asyncio.Event()
        self._none_left.set()

    def check_runner(self, runner_id: str) -> None:
        """Does nothing when a chain for this runner id is for this runner.

        Raises:
            FailedPreconditionError: It is for a runner that had this address before.
        """
        if runner_id not in ("", self._runner_id):
            raise FailedPreconditionError(
                f"this is job runner {self._runner_id}, not {runner_id}: that one is gone",
                reason="OTHER_RUNNER",
            )

    async def start_new(self, job_chain: JobChain, epoch: int) -> None:
        """Starts a new chain. One that is held already is left alone.

        Raises:
            InvalidArgumentError: The chain is not valid.
            FailedPreconditionError: An earlier assignment of the request still runs here.
            ResourceExhaustedError: The runner holds as many chains as it may.
            UnavailableError: The runner shuts down.
        """
        assignment = Assignment(request_id=job_chain.request_id, epoch=epoch)
        chain = RunningChain.new(job_chain)  # One that is not valid is told so, whatever is held.
        if not self._is_held(assignment):
            self._run(assignment, chain)

    async def resume(self, suspended: SuspendedJobChain, epoch: int) -> None:
        """Goes on with a suspended chain. One that is held already is left alone.

        Raises:
            SpinCycleError: As `start_new`.
        """
        assignment = Assignment(request_id=suspended.request_id, epoch=epoch)
        chain = RunningChain.resume(suspended)
        if not self._is_held(assignment):
            self._run(assignment, chain)

    def stop(self, request_id: str) -> None:
        """Tells a chain to stop.

        Raises:
            NotFoundError: The runner does not hold it.
        """
        held = self._held.get(request_id)
        if held is None:
            raise NotFoundError("traverser not found", reason="JOB_CHAIN_NOT_FOUND", request_id=request_id)
        held[1].stop()

    def holds(self, request_id: str) -> bool:
        """Whether the runner holds the chain of the request."""
        return request_id in self._held

    def assignments(self) -> Iterable[Assignment]:
        """Returns the assignments of all chains that are held."""
        return [assignment for assignment, _ in self._held.values()]

    async def running_jobs(self, request_id: str = "") -> list[JobStatus]:
        """Returns the running jobs of one chain, or of all, oldest first."""
        traversers = [
            traverser for held_id, (_, traverser) in self._held.items() if request_id in ("", held_id)
        ]
        statuses = await asyncio.gather(*(traverser.status() for traverser in traversers))
        return sorted((job for jobs in statuses for job in jobs), key=lambda job: job.started_at)

    async def suspend_all(self) -> None:
        """Takes no more chains, suspends those that are held, and returns when none is left."""
        self._draining = True
        for _, traverser in list(self._held.values()):
            traverser.suspend()
        await self._none_left.wait()

    def suspend_held(self) -> None:
        """Suspends the chains that Request Managers gave: the runner's lease is over. Returns at once.

        Another runner may have them by now. If none has, they are taken from here when a Request
        Manager is there again, with all that has happened to them.
        """
        for assignment, traverser in list(self._held.values()):
            if assignment.epoch:
                traverser.suspend()

    def _is_held(self, assignment: Assignment) -> bool:
        if self._draining:
            raise UnavailableError("job runner is shutting down", reason="SHUTTING_DOWN")
        held = self._held.get(assignment.request_id)
        if held is None:
            if len(self._held) >= self._max_chains:
                raise ResourceExhaustedError(
                    f"job runner holds {self._max_chains} chains, its limit: try again later",
                    reason="TOO_MANY_CHAINS",
                )
            if self._jobs >= self._max_jobs:
                raise ResourceExhaustedError(
                    f"job runner holds chains of {self._max_jobs} jobs, its limit: try again later",
                    reason="TOO_MANY_CHAINS",
                )
            return False
        if held[0].epoch == assignment.epoch:
            return True
        if held[0].epoch < assignment.epoch:
            held[1].drop("its request has a newer assignment")
        raise FailedPreconditionError(
            f"an earlier assignment of request {assignment.request_id} is still held",
            reason="EARLIER_ASSIGNMENT",
            request_id=assignment.request_id,
        )

    def _run(self, assignment: Assignment, chain: RunningChain) -> None:
        traverser = self._make_traverser(chain, assignment)
        self._held[assignment.request_id] = (assignment, traverser)
        self._none_left.clear()
        jobs = len(chain.jobs)
        self._jobs += jobs
        traverser.start(on_done=lambda: self._drop(assignment, jobs))

    def _drop(self, assignment: Assignment, jobs: int) -> None:
        del self._held[assignment.request_id]
        self._jobs -= jobs
        if not self._held:
            self._none_left.set()
