"""Stopping requests: written in the database first, and told to their runners after that.

So whoever takes a request over from a runner that is gone, or that goes before it has stopped,
stops it; and a runner that was not told is told when it next says what it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import NotFoundError, SpinCycleError
from spincycle_grpc.state import State
from spincycle_server.store.errors import wrong_state

if TYPE_CHECKING:
    from spincycle_grpc.v1.runner_reports_pb2 import RunnerInfo
    from spincycle_server.request_manager.delivery import Delivery
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

STOP_TRIES = 3
"""How often a runner is told to stop a request before whoever stopped it is answered."""

_PAUSE = 0.05


class RequestStopper:
    """Stops requests.

    Args:
        store: Where stops are written.
        runners: How runners are told.
        delivery: Bounds how many are told in the background.
        on_gone: Is called when the runner of a request that is to stop is gone.
    """

    def __init__(
        self, store: Store, runners: Runners, delivery: Delivery, *, on_gone: Callable[[], None]
    ) -> None:
        self._store = store
        self._runners = runners
        self._delivery = delivery
        self._on_gone = on_gone

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

    def tell_runner(self, runner: RunnerInfo, request_id: str) -> None:
        """Tells a runner, in the background and once, to stop a request that it has."""

        async def tell() -> None:
            try:
                await self._runners.stop_job_chain(runner, request_id)
            except SpinCycleError as error:  # It is told again with its next report, if it still has it.
                logger.info("runner did not stop a request", request_id=request_id, error=str(error))

        self._delivery.try_in_background(tell)

    async def _stop_running(self, request_id: str) -> bool:
        """Tells the runner of a request to stop it. Returns False when it is to be looked at again."""
        holder = await self._store.get_assignment(request_id)
        if holder is None:
            return False
        _, runner_id = holder
        runner = self._runners.get(runner_id)
        if runner is None:  # It may have come to life at another Request Manager.
            await self._runners.refresh()
            runner = self._runners.get(runner_id)
        if runner is None:
            self._on_gone()
            return True
        try:
            await self._runners.stop_job_chain(runner, request_id)
        except NotFoundError:
            # Either the chain is on its way to the runner, or its last report to the database.
            await asyncio.sleep(_PAUSE)
            return False
        except SpinCycleError as error:
            logger.warning("runner does not answer", runner_id=runner_id, error=str(error))
            await asyncio.sleep(_PAUSE)
            return False
        return True
