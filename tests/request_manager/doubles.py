"""Runners whose answers a test decides, and what several tests of the Request Manager share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_runner_pb2 import AssignedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_grpc.v1.status_pb2 import JobStatus, StatusFilter
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.request_manager.runners import Runners
from spincycle_server.store import Store
from tests.limits import STEP


class Clock:
    """A clock that stands still until a test advances it. It replaces the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class ScriptedRunners(Runners):
    """Runners that answer each delivery as told: None accepts the chain. A further delivery is an error."""

    def __init__(self, store: Store, *answers: SpinCycleError | None) -> None:
        super().__init__(store)
        self.answers = list(answers)

    async def start_job_chain(self, runner: RunnerInfo, chain: bytes) -> None:
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer


class WillingRunners(Runners):
    """Runners that accept each chain and each stop.

    Attributes:
        delivered: The runner ids and the chains that they have accepted.
        stopped: The runner ids and the requests that they were told to stop.
        stop_errors: Errors for the next stops, instead of an acceptance.
        told: What they were told about pauses: runner id, assignment, and "pause", "now" or "unpause".
        pause_errors: Errors for the next of these calls, instead of an acceptance.
        running: The jobs that run.
        asked: The ids of runners that were called at their address.
        address_errors: Errors of the next of these calls, instead of an answer.
        answering: The ids of the runners that list their jobs.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.delivered: list[tuple[str, AssignedJobChain]] = []
        self.stopped: list[tuple[str, str]] = []
        self.skipped: list[str] = []
        self.stop_errors: list[SpinCycleError] = []
        self.told: list[tuple[str, Assignment, str]] = []
        self.pause_errors: list[SpinCycleError] = []
        self.running: list[JobStatus] = []
        self.asked: list[str] = []
        self.address_errors: list[SpinCycleError] = []
        self.answering: tuple[str, ...] = ()

    async def error_at_address(self, runner: RunnerInfo, limit: float) -> SpinCycleError | None:
        self.asked.append(runner.runner_id)
        return self.address_errors.pop(0) if self.address_errors else None

    async def start_job_chain(self, runner: RunnerInfo, chain: bytes) -> None:
        self.delivered.append((runner.runner_id, AssignedJobChain.FromString(chain)))

    async def stop_job_chain(
        self, runner: RunnerInfo, request_id: str, *, skip_finally: bool = False
    ) -> None:
        self.stopped.append((runner.runner_id, request_id))
        self.skipped += [request_id] if skip_finally else []
        if self.stop_errors:
            raise self.stop_errors.pop(0)

    async def pause_job_chain(self, runner: RunnerInfo, assignment: Assignment, *, stops_jobs: bool) -> None:
        self._tell(runner, assignment, "now" if stops_jobs else "pause")

    async def unpause_job_chain(self, runner: RunnerInfo, assignment: Assignment) -> None:
        self._tell(runner, assignment, "unpause")

    def _tell(self, runner: RunnerInfo, assignment: Assignment, what: str) -> None:
        self.told.append((runner.runner_id, assignment, what))
        if self.pause_errors:
            raise self.pause_errors.pop(0)

    async def running_jobs(self, status_filter: StatusFilter) -> list[JobStatus]:
        return self.running

    async def jobs_by_runner(self) -> dict[str, Sequence[JobStatus]]:
        return dict.fromkeys(self.answering, self.running)


async def make_dispatcher(store: Store, runners: Runners, *, max_waiting: int = 10_000) -> Dispatcher:
    """Returns a dispatcher whose rounds start only when it is woken, and reads the live runners."""
    await runners.refresh()
    return Dispatcher(store, runners, interval=3600, suspended_timeout=3600, max_waiting=max_waiting)


async def deliveries_end(dispatcher: Dispatcher) -> None:
    """Waits until nothing is in flight."""
    async with asyncio.timeout(STEP):
        while in_flight := dispatcher._delivery._in_flight:
            await asyncio.wait(in_flight)


async def state_of(store: Store, request_id: str) -> State:
    """Returns the state of a stored request."""
    return State((await store.get_request(request_id, with_job_chain=False)).state)


async def reaches_state(store: Store, request_id: str, state: State) -> None:
    """Waits until a request is in a state."""
    async with asyncio.timeout(STEP):
        while await state_of(store, request_id) is not state:  # noqa: ASYNC110 (the database has no event)
            await asyncio.sleep(0.01)
