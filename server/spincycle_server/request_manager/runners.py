"""The live Job Runners: which ones there are, and which one gets the next chain.

The database says which runners are alive, and `refresh` reads that. Between two refreshes, runners that
report to this process are added.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import grpc
import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_runner_pb2 import JobRunnerFollowOutputRequest, JobRunnerFollowOutputResponse
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_grpc.v1.status_pb2 import JobStatus, StatusFilter
from spincycle_server.capabilities import (
    KNOWS_ALL,
    NEEDS_NOTHING,
    PAUSE,
    WAITS_FOR_LIMIT,
    Capabilities,
    Requirement,
    why_not,
)
from spincycle_server.request_manager.able_runners import AbleRunners
from spincycle_server.request_manager.asked_types import AskedTypes
from spincycle_server.request_manager.capacity_watch import CapacityWatch, Demand
from spincycle_server.request_manager.chain_sender import ChainSender
from spincycle_server.request_manager.full_runners import OFFER_LASTS, FullRunners
from spincycle_server.request_manager.runner_calls import RunnerCalls
from spincycle_server.store.leases import LiveRunner
from spincycle_server.store.schema import ORIGINAL

if TYPE_CHECKING:
    from spincycle_grpc.v1.approval_pb2 import ApprovalOutcome
    from spincycle_grpc.v1.limit_pb2 import SequenceLimitOutcome
    from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

DENIED_PAUSE = 10.0
"""Seconds for which a runner that does not accept this server's key or certificate gets no chains."""


class Runners:
    """The live Job Runners.

    Args:
        store: Says which runners are alive.
        credentials: Returns the newest credentials for TLS to the runners; None for plaintext.
        call_metadata: Returns the metadata that identifies this server to the runners. It contains the
            servers' key, so it is sent only over TLS or to this machine.
        only_own: Whether only runners that have reported to this process are used, because no other runner
            knows its key.

    Attributes:
        asked_types: The job types that the runners are asked about.
        reports_here: Whether a runner, by its id, reports to this process.
        on_place: Called when a full runner offers places.
    """

    def __init__(
        self,
        store: Store,
        credentials: Callable[[], grpc.ChannelCredentials | None] = lambda: None,
        call_metadata: Callable[[], Sequence[tuple[str, str]]] = tuple,
        *,
        only_own: bool = False,
    ) -> None:
        self._store = store
        self._calls = RunnerCalls(credentials, call_metadata, only_own=only_own)
        self._own: set[str] | None = set() if only_own else None
        self._unusable: set[str] = set()
        self._denied: dict[str, float] = {}  # until when
        self._live: dict[str, RunnerInfo] = {}
        self._draining: set[str] = set()
        self._heard: dict[str, LiveRunner] = {}  # since the last refresh began
        self._able = AbleRunners()
        self._lost: frozenset[str] = frozenset()
        self.asked_types = AskedTypes()
        self._senders: dict[str, ChainSender] = {}
        self._turn = 0
        self._full = FullRunners()
        self._wanted_by_others: set[str] = set()
        self._capacity = CapacityWatch(
            self._calls.watch_capacity, on_offer=self._offered, on_denied=self.mark_denied
        )
        self.reports_here: Callable[[str], bool] = lambda _: False
        self.on_place: Callable[[], None] = lambda: None

    async def refresh(self) -> bool:
        """Reads the live runners from the database, and closes the channels to all others.

        Returns whether there are other runners than before, or other capabilities.
        """
        self._heard.clear()
        stored = await self._store.live_runners()
        self._unusable &= {one.runner.runner_id for one in stored}
        live = [one for one in stored if self._is_usable(one.runner)]
        # The read may have missed what these have said.
        live += self._heard.values()
        self._live = {one.runner.runner_id: one.runner for one in live}
        has_changed = self._able.replace({one.runner.runner_id: one.capabilities for one in live})
        draining = {one.runner.runner_id for one in live if one.draining}
        self._draining = draining | (self._draining & self._heard.keys())
        for runner_id in [runner_id for runner_id in self._senders if runner_id not in self._live]:
            await self._senders.pop(runner_id).close()
        self._full.keep(set(self._live))
        self._capacity.keep(self._live.keys())
        self._wanted_by_others &= self._live.keys()
        self._denied = {one: until for one, until in self._denied.items() if one in self._live}
        await self._calls.keep({one.runner.grpc_address for one in live})
        return has_changed

    def _is_usable(self, runner: RunnerInfo) -> bool:
        if self._own is not None:
            return runner.runner_id in self._own
        try:
            self._calls.check_may_call(runner)
        except SpinCycleError as error:
            if runner.runner_id not in self._unusable:
                self._unusable.add(runner.runner_id)
                logger.warning("runner is not used", runner_id=runner.runner_id, error=str(error))
            return False
        return True

    def states(self) -> Mapping[tuple[str, ...], float]:
        """Returns how many runners there are by state, for the metrics. A runner counts once."""
        counts = dict.fromkeys(("ready", "full", "draining", "refusing"), 0)
        for one in self._live:
            if one in self._draining:
                counts["draining"] += 1
            elif not self._takes_chains(one):
                counts["refusing"] += 1
            else:
                counts["full" if one in self._full else "ready"] += 1
        return {(state,): float(count) for state, count in counts.items()}

    def check_may_call(self, runner: RunnerInfo) -> None:
        """Checks that a runner can be called without sending the servers' key in plain text.

        Raises:
            FailedPreconditionError: It cannot. Reason: NEEDS_TLS.
        """
        self._calls.check_may_call(runner)

    async def error_at_address(self, runner: RunnerInfo, limit: float) -> SpinCycleError | None:
        """Returns None if a runner answers at its address within some seconds, otherwise the error."""
        return await self._calls.error_at_address(runner, limit)

    def add(self, runner: RunnerInfo, capabilities: Capabilities = KNOWS_ALL) -> None:
        """Adds a runner that has just reported to this process. It replaces others at its address."""
        if self._own is not None:
            self._own.add(runner.runner_id)
        for other in list(self._live.values()):
            if other.grpc_address == runner.grpc_address and other.runner_id != runner.runner_id:
                self.remove(other.runner_id)
        self._able.add(runner.runner_id, capabilities)
        self._live[runner.runner_id] = runner
        self._heard[runner.runner_id] = LiveRunner(runner, False, capabilities)

    def remove(self, runner_id: str) -> None:
        """Removes a runner that is not alive."""
        self._heard.pop(runner_id, None)
        self._live.pop(runner_id, None)
        self._able.remove(runner_id)

    def drain(self, runner_id: str) -> None:
        """Marks a runner that shuts down: it gets no more chains."""
        self._draining.add(runner_id)

    def is_draining(self, runner_id: str) -> bool:
        """Whether a runner is known to shut down."""
        return runner_id in self._draining

    def get(self, runner_id: str) -> RunnerInfo | None:
        """Returns a live runner; None if it is not alive."""
        return self._live.get(runner_id)

    def cannot_pause(self, runner_id: str) -> bool:
        """Whether a live runner is of a release that cannot pause chains."""
        return runner_id in self._live and not self._able.has_feature(runner_id, PAUSE)

    def mark_full(self, runner_id: str, learned: int | None = None) -> None:
        """Marks a runner that has refused a chain because it is full: it gets chains only as it has room.

        Args:
            runner_id: The runner.
            learned: What `learned_places` returned when the chain was sent; None if no place remains.
        """
        self._full.refused(runner_id, learned)

    def learned_places(self, runner_id: str) -> int:
        """Returns how many places of a runner were learned since it is full."""
        return self._full.learned(runner_id)

    def is_full(self, runner_id: str) -> bool:
        """Whether a runner has refused a chain because it is full, and has not shown room since."""
        return runner_id in self._full

    def mark_denied(self, runner_id: str) -> None:
        """Marks a runner that does not accept this server: it gets no chains for a while."""
        self._denied[runner_id] = time.monotonic() + DENIED_PAUSE

    def others_want(self, runner_id: str, places: int) -> None:
        """Notes how many places of a runner that reports here other Request Managers want."""
        if places:
            self._full.drop_spare(runner_id)
            self._wanted_by_others.add(runner_id)
        else:
            self._wanted_by_others.discard(runner_id)

    def add_places(self, runner_id: str, places: int, *, spare: int = 0) -> bool:
        """Gives a full runner room for more chains. Returns whether it was full.

        Args:
            runner_id: The runner.
            places: How many more chains it may get.
            spare: How many of these places are promised to nobody.
        """
        return self._full.add_places(runner_id, places, spare=spare)

    def needed_places(self, runner_id: str, waiting: int) -> int:
        """Returns how many more places of a full runner the requests need that wait for it here.

        Args:
            runner_id: The runner.
            waiting: How many requests wait that it can run.
        """
        if runner_id not in self._full or not self._takes_chains(runner_id):
            return 0
        return max(0, waiting - self._full.room(runner_id))

    def want_places(self, waiting: Callable[[str], int]) -> None:
        """Lets the full runners that report to others offer the places that are needed here, and no others.

        Args:
            waiting: Returns how many requests wait that a runner can run.
        """
        demands = {}
        for runner_id in self._full:
            runner = self._live.get(runner_id)
            if runner is not None and not self.reports_here(runner_id):
                places = self.needed_places(runner_id, waiting(runner_id))
                if places:
                    demands[runner_id] = Demand(runner, places)
        self._capacity.want(demands)

    def _offered(self, runner_id: str, places: int) -> None:
        if self._full.add_places(runner_id, places, lasts=OFFER_LASTS):
            self.on_place()

    def any_free(self, requirement: Requirement = NEEDS_NOTHING) -> bool:
        """Whether a live runner with what a request needs accepts chains and is not full."""
        return any(self._takes_chains(one) and one not in self._full for one in self.able(requirement))

    def able(self, requirement: Requirement) -> tuple[str, ...]:
        """Returns the ids of the live runners that have what a request needs, even if they take no chains."""
        return self._able.of(requirement)

    def is_blocked(self, requirement: Requirement) -> bool:
        """Whether there are runners, but none of them has what a request needs, or it waits for a limit."""
        if requirement == WAITS_FOR_LIMIT:
            return True
        if any(one not in self._draining for one in self.able(requirement)):
            return False
        return any(one not in self._draining for one in self._live)

    def ask_about(self, requirements: Iterable[Requirement]) -> None:
        """Asks the runners about the job types of waiting requests, if no runner is known to know them."""
        for requirement in set(requirements):
            if self.is_blocked(requirement):
                self.asked_types.add(requirement.types)

    def have_room(self, requirement: Requirement) -> bool:
        """Whether a runner with what a request needs may get a chain now."""
        return any(self._may_get_chain(one) for one in self.able(requirement))

    def mark_lost(self, runner_ids: frozenset[str]) -> None:
        """Sets the runners that have RUNNING requests and no lease."""
        self._lost = runner_ids

    def why_waiting(self, state: State, requirement: Requirement, runner_id: str) -> str:
        """Returns why no runner can run a request that waits; "" if one can, or if no runner is alive.

        Args:
            state: The state of the request.
            requirement: What it needs.
            runner_id: The runner that it is assigned to, or ""; or ORIGINAL, see there.
        """
        if state is State.PENDING and runner_id == ORIGINAL:
            return "the original Spin Cycle created it and may have denied it: start it if it must run"
        if requirement == WAITS_FOR_LIMIT:
            return ""  # The store says which limit it is.
        if state is State.RUNNING and (runner_id not in self._lost or runner_id in self._live):
            return ""
        active = self._able.capabilities(one for one in self._live if one not in self._draining)
        if any(one.types == frozenset() for one in active):
            return ""  # A new runner has not said yet which types it knows: each knows at least "noop".
        return why_not(requirement, active) if active else ""

    def _takes_chains(self, runner_id: str) -> bool:
        return runner_id not in self._draining and self._denied.get(runner_id, 0.0) <= time.monotonic()

    def _may_get_chain(self, runner_id: str) -> bool:
        """Whether a runner may get a chain now. A full runner that offers its places is not probed."""
        if not self._takes_chains(runner_id):
            return False
        if runner_id in self._full and (runner_id in self._capacity or self._offers_to_others(runner_id)):
            return self._full.room(runner_id) > 0
        return self._full.probe(runner_id)

    def _offers_to_others(self, runner_id: str) -> bool:
        """Whether a runner reports here that others want its places: then it offers them each free one."""
        return runner_id in self._wanted_by_others and self.reports_here(runner_id)

    def pick(self, requirement: Requirement = NEEDS_NOTHING) -> RunnerInfo | None:
        """Returns the next runner that has what a request needs, and room for its chain, round-robin.

        Returns None if no runner has.
        """
        with_room = [one for one in self.able(requirement) if self._may_get_chain(one)]
        if not with_room:
            return None
        self._turn += 1
        picked = self._live[with_room[self._turn % len(with_room)]]
        self._full.chain_given(picked.runner_id)
        return picked

    def not_used(self, runner: RunnerInfo) -> None:
        """Gives back the place of a runner that was picked and gets no chain."""
        self._full.chain_not_given(runner.runner_id)

    def start_job_chain(self, runner: RunnerInfo, chain: bytes) -> Awaitable[None]:
        """Delivers a chain to a runner, see `ChainSender.send`. Safe to repeat.

        Args:
            runner: The runner.
            chain: The serialized AssignedJobChain.
        """
        sender = self._senders.get(runner.runner_id)
        if sender is None:
            sender = self._senders[runner.runner_id] = ChainSender(
                runner.runner_id, lambda request: self._calls.start_job_chains(runner, request)
            )
        return sender.send(chain)

    async def stop_job_chain(
        self, runner: RunnerInfo, request_id: str, *, skip_finally: bool = False
    ) -> None:
        """Tells the runner to stop a chain, with or without its `finally` parts. Safe to repeat.

        Raises:
            SpinCycleError: An error of StopJobChain, or the runner cannot be reached.
        """
        await self._calls.stop_job_chain(runner, request_id, skip_finally=skip_finally)

    async def pause_job_chain(self, runner: RunnerInfo, assignment: Assignment, *, stops_jobs: bool) -> None:
        """Tells the runner to pause a chain. Safe to repeat.

        Raises:
            SpinCycleError: An error of PauseJobChain, or the runner cannot be reached.
        """
        await self._calls.pause_job_chain(runner, assignment, stops_jobs=stops_jobs)

    async def unpause_job_chain(self, runner: RunnerInfo, assignment: Assignment) -> None:
        """Tells the runner to go on with a chain that it pauses. Safe to repeat.

        Raises:
            SpinCycleError: An error of UnpauseJobChain, or the runner cannot be reached.
        """
        await self._calls.unpause_job_chain(runner, assignment)

    async def end_limit_wait(self, runner: RunnerInfo, outcome: SequenceLimitOutcome) -> None:
        """Tells the runner how a sequence's wait for its keys has ended. Safe to repeat.

        Raises:
            SpinCycleError: An error of EndLimitWait, or the runner cannot be reached.
        """
        await self._calls.end_limit_wait(runner, outcome)

    async def end_approval(self, runner: RunnerInfo, outcome: ApprovalOutcome) -> None:
        """Tells the runner how a wait for an approval has ended. Safe to repeat.

        Raises:
            SpinCycleError: An error of EndApproval, or the runner cannot be reached.
        """
        await self._calls.end_approval(runner, outcome)

    def follow_output(
        self, runner: RunnerInfo, request: JobRunnerFollowOutputRequest
    ) -> AsyncGenerator[JobRunnerFollowOutputResponse, None]:
        """Yields what a runner answers to FollowOutput.

        Raises:
            SpinCycleError: An error of FollowOutput, or the runner cannot be reached.
        """
        return self._calls.follow_output(runner, request)

    async def running_jobs(self, status_filter: StatusFilter) -> list[JobStatus]:
        """Returns the running jobs of all live runners, oldest first.

        It asks all runners at once. The jobs of a runner that does not answer in time are missing, and a
        warning in the log says so.
        """
        return await self._jobs_of(self._live.values(), status_filter)

    async def jobs_of_requests(self, request_ids: Sequence[str], urls: Collection[str]) -> list[JobStatus]:
        """Returns the running jobs of some requests, oldest first, as `running_jobs`.

        Args:
            request_ids: The requests. A runner of an earlier version also returns the jobs of others.
            urls: Only runners with these URLs are asked.
        """
        asked = [runner for runner in self._live.values() if runner.url in urls]
        return await self._jobs_of(asked, StatusFilter(), request_ids)

    async def _jobs_of(
        self, runners: Iterable[RunnerInfo], status_filter: StatusFilter, request_ids: Sequence[str] = ()
    ) -> list[JobStatus]:
        """Asks runners at once, and returns their running jobs, oldest first."""
        answers = await asyncio.gather(
            *(self._running_jobs_of(runner, status_filter, request_ids) for runner in runners)
        )
        return sorted((job for jobs in answers for job in jobs), key=lambda job: job.started_at)

    async def jobs_by_runner(self) -> dict[str, Sequence[JobStatus]]:
        """Returns the running jobs of each live runner that answers in time, by runner id."""
        live = list(self._live.values())
        answers = await asyncio.gather(*(self._answered_jobs_of(runner) for runner in live))
        return {
            runner.runner_id: jobs for runner, jobs in zip(live, answers, strict=True) if jobs is not None
        }

    async def _answered_jobs_of(self, runner: RunnerInfo) -> Sequence[JobStatus] | None:
        try:
            return await self._calls.running_jobs(runner, StatusFilter())
        except SpinCycleError as error:
            logger.info("runner did not list its running jobs", runner_id=runner.runner_id, error=str(error))
            return None

    async def _running_jobs_of(
        self, runner: RunnerInfo, status_filter: StatusFilter, request_ids: Sequence[str] = ()
    ) -> Sequence[JobStatus]:
        try:
            return await self._calls.running_jobs(runner, status_filter, request_ids)
        except SpinCycleError as error:
            if error.reason != "JOB_CHAIN_NOT_FOUND":
                logger.warning(
                    "runner did not list its running jobs", runner_id=runner.runner_id, error=str(error)
                )
            return []

    async def close(self) -> None:
        """Cancels all calls, and closes all channels."""
        senders, self._senders = list(self._senders.values()), {}
        await asyncio.gather(self._capacity.close(), *(sender.close() for sender in senders))
        await self._calls.close()
