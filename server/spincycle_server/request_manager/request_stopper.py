"""The stopping of requests: a stop is committed first, and then the runner is told.

So a stop is not lost if a runner or a Request Manager dies. If the request is taken over, it is then stopped.
A runner that was not told learns of the stop when it next lists its chains.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.state import State
from spincycle_server.request_manager.holders import TELL_TRIES, Holders, Told
from spincycle_server.store.errors import wrong_state
from spincycle_server.store.states import StopOutcome, UnassignedStop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from spincycle_grpc.v1.request_pb2 import Request
    from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
    from spincycle_server.request_manager.dispatcher import Dispatcher
    from spincycle_server.request_manager.original_runners import OriginalRunners
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store
    from spincycle_server.store.audit import EventRow

logger = structlog.get_logger(__name__)


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
        self._holders = Holders(store, runners)

    async def stop(self, request_id: str, event: EventRow | None = None) -> None:
        """Stops a request that no runner has, or tells its runner to stop it.

        Its `finally` parts run first. A second stop skips them.

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
        looks = 0
        while True:
            request = await self._store.get_request(request_id, with_job_chain=False)
            state = State(request.state)
            if state in (State.COMPLETE, State.STOPPED):
                return
            if state in (State.PENDING, State.SUSPENDED):
                stopped = await self._store.stop_unassigned(request_id, event, is_repeated=looks > 0)
                if stopped is UnassignedStop.FINALLY_RUNS:
                    self._dispatcher.wake()
                if stopped:
                    return
            elif state == State.RUNNING:
                outcome = await self._store.request_stop(request_id, event, is_repeated=looks > 0)
                if outcome is StopOutcome.RUN_BY_ORIGINAL:
                    await self._stop_on_original(request)
                    return
                if outcome in (StopOutcome.RUNNING, StopOutcome.FINALLY_SKIPPED):
                    event = None  # It must not be stored twice.
                    looks += 1
                    skip_finally = outcome is StopOutcome.FINALLY_SKIPPED
                    if await self._tell_holder(request_id, skip_finally) or looks == TELL_TRIES:
                        return
            else:
                raise wrong_state(request_id, state, State.RUNNING)

    async def _stop_on_original(self, request: Request) -> None:
        """Passes a stop on to a runner of an original, which reports the end; ends the request without it."""
        if not await self._originals.stop(request.job_runner_url, request.id):
            await self._store.end_lost_original(request.id)

    def tell_runner(self, runner: RunnerInfo, request_id: str, *, skip_finally: bool) -> None:
        """Tells a runner once, in the background, to stop a request that it has."""
        tell = self._runners.stop_job_chain
        self._try_in_background(request_id, partial(tell, runner, request_id, skip_finally=skip_finally))

    def tell_holder(self, request_id: str) -> None:
        """Tells the runner of a request once, in the background, that the request must stop."""
        tell = partial(self._tell_holder, request_id, skip_finally=False, tries=1)
        self._try_in_background(request_id, tell)

    def _try_in_background(
        self, request_id: str, tell: Callable[[], Coroutine[object, object, object]]
    ) -> None:
        async def try_once() -> None:
            try:
                await tell()
            except SpinCycleError as error:  # The runner's next list of chains shows whether it has it.
                logger.info("runner did not stop a request", request_id=request_id, error=str(error))

        self._dispatcher.try_in_background(try_once)

    async def _tell_holder(self, request_id: str, skip_finally: bool, *, tries: int = TELL_TRIES) -> bool:
        """Tells the runner of a request to stop it. Returns False if no runner has the request any more."""

        async def tell(runner: RunnerInfo, _: Assignment) -> None:
            await self._runners.stop_job_chain(runner, request_id, skip_finally=skip_finally)

        told = await self._holders.tell(request_id, tell, tries=tries)
        if told is Told.HOLDER_LOST:
            self._dispatcher.wake()
        return told is not Told.NO_HOLDER
