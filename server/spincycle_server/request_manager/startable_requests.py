"""Finds the oldest requests that a runner can take now, also behind many that no runner can take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from spincycle_grpc.state import State

if TYPE_CHECKING:
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store
    from spincycle_server.store.requirements import WaitingPage, WaitingRequest


class StartableRequests(NamedTuple):
    """What one look has found.

    Attributes:
        requests: Requests that a runner can take now, oldest first.
        page: The oldest requests, which may include others.
    """

    requests: Sequence[WaitingRequest]
    page: WaitingPage


async def find_startable(store: Store, runners: Runners, state: State, limit: int) -> StartableRequests:
    """Returns the oldest requests in a state that a runner can take now.

    It reads the oldest requests, whatever they need. Only if some of these cannot start and there are more
    requests, it looks for others. That takes one look into an index for each requirement, and never reads
    the requests that cannot start.

    Args:
        store: Where the requests are.
        runners: The runners that may take them.
        state: PENDING or SUSPENDED.
        limit: The maximum number of requests.
    """
    page = await store.requirements.oldest_waiting(state, limit)
    runners.ask_about(one.requirement for one in page.requests)
    startable = _startable(runners, page.requests)
    if not page.is_last and len(startable) < limit:
        waiting = await store.requirements.waiting(state)
        runners.ask_about(waiting.values())
        ids = [one for one, requirement in waiting.items() if not one or runners.have_room(requirement)]
        found = await store.requirements.oldest_waiting_for(state, ids, limit)
        startable = _startable(runners, found)
    return StartableRequests(startable, page)


def _startable(runners: Runners, waiting: Sequence[WaitingRequest]) -> list[WaitingRequest]:
    return [one for one in waiting if runners.have_room(one.requirement)]
