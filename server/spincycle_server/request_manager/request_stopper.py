"""The stopping of requests: a stop is committed first, and then the runner is told.

So a stop is not lost if a runner or a Request Manager dies. If the request is taken over, it is then stopped.
A runner that was not told learns of the stop when it next lists its chains.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import NotFoundError, SpinCycleError
from spincycle_grpc.state import State
from spincycle_server.store.errors import wrong_state
from spincycle_server.store.states import StopOutcome

if TYPE_CHECKING:
    from spincycle_grpc.v1.request_pb2 import Request
    from spincycle_grpc.v1.runner_reports_pb2 import RunnerInfo
    from spincycle_server.request_manager.dispatcher import Dispatcher
    from spincycle_server.request_manager.original_runners import OriginalRunners
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store
    from spincycle_server.store.audit import EventRow

logger = structlog.get_logger(__name__)

STOP_TRIES = 3
"""Attempts to tell a runner of a stop before the user gets an answer."""

_PAUSE = 0.05
"""Seconds between two attempts."""


class RequestStopper:
    """Stops requests.

    Args:
        store: Where stops are written.
        runners: How runners are told.
        dispatcher: Tells runners in the background, and takes over requests whose runner is gone.
        originals: How runners of an original Spin Cycle are told.
    """

    def __init__(
        self, store: Store, runners: Runners, dispatcher: Dispatcher, originals: OriginalRunners
    ) -> None:
        self._store = store
        self._runners = runners
        self._dispatcher = dispatcher
        self._originals = originals

    async def stop(self, request_id: str, event: EventRow | None = None) -> None:
        """Stops a request that no runner has, or tells its runner to stop it.

        Returns when the stop is committed and the runner was told. A runner that does not answer learns of
        the stop with its next report. A request that is COMPLETE or STOPPED stays so.

        Args:
            request_id: The request.
            event: The audit event of the call, which is stored with the stop.

        Raises:
            NotFoundError: There is no such request.
            FailedPreconditionError: Its state is FAIL.
            UnavailableError: A runner of an original Spin Cycle has it, and does not answer. The stop is
                committed nevertheless.
        """
        attempts = 0
        while True:
            request = await self._store.get_request(request_id, with_job_chain=False)
            state = State(request.state)
            if state in (State.COMPLETE, State.STOPPED):
                return
            if state in (State.PENDING, State.SUSPENDED):
                if await self._store.stop_unassigned(request_id, event):
                    return
            elif state == State.RUNNING:
                outcome = await self._store.request_stop(request_id, event)
                if outcome is StopOutcome.RUN_BY_ORIGINAL:
                    await self._stop_on_original(request)
                    return
                if outcome is StopOutcome.RUNNING:
                    event = None  # It must not be stored twice.
                    attempts += 1
                    if await self._stop_running(request_id) or attempts == STOP_TRIES:
                        return
            else:
                raise wrong_state(request_id, state, State.RUNNING)

    async def _stop_on_original(self, request: Request) -> None:
        """Passes a stop on to a runner of an original, which reports the end; ends the request without it."""
        if not await self._originals.stop(request.job_runner_url, request.id):
            await self._store.end_lost_original(request.id)

    def tell_runner(self, runner: RunnerInfo, request_id: str) -> None:
        """Tells a runner once, in the background, to stop a request that it has."""

        async def tell() -> None:
            try:
                await self._runners.stop_job_chain(runner, request_id)
            except SpinCycleError as error:  # The runner's next list of chains shows whether it has it.
                logger.info("runner did not stop a request", request_id=request_id, error=str(error))

        self._dispatcher.try_in_background(tell)

    async def _stop_running(self, request_id: str) -> bool:
        """Tells the runner of a request to stop it. Returns False to look at the request again."""
        holder = await self._store.get_assignment(request_id)
        if holder is None:
            return False
        _, runner_id = holder
        runner = self._runners.get(runner_id)
        if runner is None:  # It may report to another Request Manager now.
            await self._runners.refresh()
            runner = self._runners.get(runner_id)
        if runner is None:
            self._dispatcher.wake()
            return True
        try:
            await self._runners.stop_job_chain(runner, request_id)
        except NotFoundError:
            # Either the chain has not reached the runner, or its last report is not committed yet.
            await asyncio.sleep(_PAUSE)
            return False
        except SpinCycleError as error:
            logger.warning("runner does not answer", runner_id=runner_id, error=str(error))
            await asyncio.sleep(_PAUSE)
            return False
        return True
