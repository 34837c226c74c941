"""What a Request Manager does once a change of limits is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spincycle_server.request_manager.dispatcher import Dispatcher
    from spincycle_server.request_manager.request_stopper import RequestStopper
    from spincycle_server.store.limit_ledger import LimitsChanged


class LimitChanges:
    """Starts requests that hold their keys now, and tells runners of requests that must stop.

    If the process dies first, other Request Managers find the requests in the database, and the runners learn
    of the stops when they next list their chains.

    Args:
        dispatcher: Starts requests.
        stopper: Tells runners.
    """

    def __init__(self, dispatcher: Dispatcher, stopper: RequestStopper) -> None:
        self._dispatcher = dispatcher
        self._stopper = stopper

    def committed(self, changed: LimitsChanged) -> None:
        """Takes what a transaction has changed."""
        if changed.granted:
            self._dispatcher.start_pending()
        for request_id in changed.stopped:
            self._stopper.tell_holder(request_id)
