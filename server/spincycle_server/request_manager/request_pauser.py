"""The pausing of requests: a pause is committed first, and then the runner is told.

So a pause is not lost if a runner or a Request Manager dies: a request that is taken over while it is paused
is SUSPENDED at once. A runner that was not told learns of the pause, or of its end, when it next lists its
chains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_server.request_manager.holders import Holders, Told
from spincycle_server.store.pauses import PauseOutcome

if TYPE_CHECKING:
    from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
    from spincycle_server.request_manager.dispatcher import Dispatcher
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store
    from spincycle_server.store.audit import EventRow
    from spincycle_server.store.lookups import Assigned

logger = structlog.get_logger(__name__)


class RequestPauser:
    """Pauses and resumes requests.

    A runner of an earlier release cannot pause. It is not told. Its chains are paused when it shuts down,
    because it suspends them then.

    Args:
        store: Where pauses are written.
        runners: How runners are told.
        dispatcher: Tells runners in the background, and takes over requests whose runner is gone.
    """

    def __init__(self, store: Store, runners: Runners, dispatcher: Dispatcher) -> None:
        self._store = store
        self._runners = runners
        self._dispatcher = dispatcher
        self._holders = Holders(store, runners)

    async def pause(
        self, request_id: str, user: str, *, stops_jobs: bool, event: EventRow | None = None
    ) -> None:
        """Pauses a request. Returns when the pause is committed and the runner was told, if there is one.

        A runner that does not answer learns of the pause with its next report.

        Args:
            request_id: The request.
            user: Who pauses it, or "".
            stops_jobs: Whether its running jobs are told to stop.
            event: The audit event of the call, which is stored with the pause.

        Raises:
            NotFoundError: There is no such request.
            FailedPreconditionError: It has ended or is being stopped (WRONG_STATE), or a runner of an
                original has it (CANNOT_PAUSE).
        """
        outcome = await self._store.begin_pause(request_id, user, stops_jobs=stops_jobs, event=event)
        if outcome is PauseOutcome.TELL_RUNNER:
            await self._tell_holder(request_id)

    async def resume(self, request_id: str, event: EventRow | None = None) -> None:
        """Ends the pause of a request. It goes on as soon as a runner has room.

        Args:
            request_id: The request.
            event: The audit event of the call, which is stored with the end of the pause.

        Raises:
            NotFoundError: There is no such request.
            FailedPreconditionError: It is not paused. Reason: WRONG_STATE.
        """
        outcome = await self._store.end_pause(request_id, event)
        if outcome is PauseOutcome.TELL_RUNNER:
            await self._tell_holder(request_id)
        self._dispatcher.wake()

    def compare(self, runner: RunnerInfo, request_id: str, assigned: Assigned, *, is_pausing: bool) -> None:
        """Tells a runner in the background what it does not know of a pause, of a request that it holds.

        Args:
            runner: The runner.
            request_id: The request.
            assigned: Its assignment to this runner, and whether it is paused.
            is_pausing: Whether the runner says that it pauses the chain.
        """
        must_pause = assigned.paused and (assigned.pause_now or not is_pausing)
        if not must_pause and (assigned.paused or not is_pausing):
            return

        async def tell() -> None:
            try:
                await self._tell(runner, request_id)
            except SpinCycleError as error:  # The runner's next list of chains shows whether it knows.
                logger.info("runner not told of a pause", request_id=request_id, error=str(error))

        self._dispatcher.try_in_background(tell)

    async def _tell_holder(self, request_id: str) -> None:
        """Tells the runner of a request whether it is paused. Tries a few times."""

        async def tell(runner: RunnerInfo, _: Assignment) -> None:
            await self._tell(runner, request_id)

        if await self._holders.tell(request_id, tell) is Told.HOLDER_LOST:
            self._dispatcher.wake()

    async def _tell(self, runner: RunnerInfo, request_id: str) -> None:
        """Tells a runner what the database says now, because the pause may have changed since the call.

        Raises:
            SpinCycleError: The runner does not have the request, or cannot be reached.
        """
        if self._runners.cannot_pause(runner.runner_id):
            return
        mark = await self._store.pause_of(request_id)
        if mark is None or mark.runner_id != runner.runner_id:
            return
        if mark.is_paused:
            await self._runners.pause_job_chain(runner, mark.assignment, stops_jobs=mark.stops_jobs)
        else:
            await self._runners.unpause_job_chain(runner, mark.assignment)
