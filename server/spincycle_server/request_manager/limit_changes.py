"""What a Request Manager does once a change of limits is committed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_server.request_manager.holders import Holders
from spincycle_server.store.sequence_claim_rows import SequenceWait

if TYPE_CHECKING:
    from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
    from spincycle_server.request_manager.dispatcher import Dispatcher
    from spincycle_server.request_manager.request_stopper import RequestStopper
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store
    from spincycle_server.store.limit_ledger import LimitsChanged

logger = structlog.get_logger(__name__)


class LimitChanges:
    """Starts requests that hold their keys now, and tells runners which sequences do and which requests stop.

    The log says which requests stop because others replace them.

    If the process dies first, other Request Managers find the requests in the database, and the runners learn
    of the rest when they next list their chains.

    Args:
        store: Says which sequences hold their keys.
        runners: How runners are told.
        dispatcher: Starts requests.
        stopper: Tells runners of stops.
    """

    def __init__(
        self, store: Store, runners: Runners, dispatcher: Dispatcher, stopper: RequestStopper
    ) -> None:
        self._store = store
        self._runners = runners
        self._dispatcher = dispatcher
        self._stopper = stopper
        self._holders = Holders(store, runners)

    def committed(self, changed: LimitsChanged) -> None:
        """Takes what a transaction has changed."""
        sequences: defaultdict[str, list[str]] = defaultdict(list)
        for owner in changed.granted:
            if owner.sequence_id:
                sequences[owner.request_id].append(owner.sequence_id)
        if len(changed.granted) > sum(map(len, sequences.values())):
            self._dispatcher.start_pending()
        for request_id, ids in sequences.items():
            self._dispatcher.try_in_background(partial(self._tell_holder, request_id, ids))
        for request_id in changed.stopped:
            self._stopper.tell_holder(request_id)
        for request_id, why in changed.replaced:
            logger.info("request stopped", request_id=request_id, why=why)

    async def _tell_holder(self, request_id: str, sequence_ids: Sequence[str]) -> None:
        """Tells the runner of a request which of its sequences hold their keys."""

        async def tell(runner: RunnerInfo, assignment: Assignment) -> None:
            waits = {SequenceWait(request_id, one): assignment for one in sequence_ids}
            for outcome in await self._store.limits.outcomes(waits):
                await self._runners.end_limit_wait(runner, outcome)

        try:
            await self._holders.tell(request_id, tell)
        except SpinCycleError as error:  # The runner learns of it when it next lists its chains.
            logger.info("runner not told of keys", request_id=request_id, error=str(error))
