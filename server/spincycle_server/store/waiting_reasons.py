"""Says why requests wait: for a runner, a limit, approvals, or the end of a pause."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from spincycle_grpc.state import State
from spincycle_server.capabilities import APPROVAL, NEEDS_NOTHING, Requirement
from spincycle_server.store.rows import LIMITED, PAUSED
from spincycle_server.utc_text import utc_text

if TYPE_CHECKING:
    from spincycle_grpc.v1.approval_pb2 import PendingApproval
    from spincycle_grpc.v1.request_pb2 import Request
    from spincycle_server.store.held_limits import HeldLimits
    from spincycle_server.store.requirements import Requirements
    from spincycle_server.store.waiting_approvals import WaitingApprovals

MAX_SHOWN = 50
"""The most approvals that a request shows of those that it waits for."""


class WaitingReasons:
    """Replaces the marks that `rows.marked_request_of` leaves in requests by the reasons why they wait.

    Args:
        requirements: What requests need of a runner.
        limits: Who holds the keys of limits.
        approvals: The approvals that requests wait for.

    Attributes:
        of_runners: Returns why a request waits for a runner, or "". It gets the state of the request, what
            it needs, and the id of its runner, or "".
        cannot_pause: Returns whether a runner is known not to pause chains.
    """

    def __init__(self, requirements: Requirements, limits: HeldLimits, approvals: WaitingApprovals) -> None:
        self._requirements = requirements
        self._limits = limits
        self._approvals = approvals
        self.of_runners: Callable[[State, Requirement, str], str] = lambda *_: ""
        self.cannot_pause: Callable[[str], bool] = lambda _: False

    async def add_to(self, found: Iterable[Request]) -> None:
        """Sets the fields `waiting` and `approvals` of requests that have a mark.

        Requirements are in memory after the first look, so this seldom reads.

        Raises:
            UnavailableError: The database cannot be used now.
        """
        marked = [request for request in found if request.waiting]
        if not marked:
            return
        # Thousands of requests have few different marks.
        marks = {(request.state, request.waiting) for request in marked}
        known = await self._requirements.get({mark.partition(" ")[0] for _, mark in marks} - {""})
        await self._add_approvals(
            {
                request.id: request
                for request in marked
                if APPROVAL in known.get(request.waiting.partition(" ")[0], NEEDS_NOTHING).features
            }
        )
        limited = [request.id for request in marked if request.waiting.split(" ", 3)[2] == LIMITED]
        waits = await self._limits.waits(limited) if limited else {}
        reasons = {(state, mark): self._reason(State(state), mark, known) for state, mark in marks}
        for request in marked:
            mark = request.waiting
            request.waiting = _with_wait(mark, reasons[request.state, mark], waits.get(request.id, ""))
            if request.approvals and not request.waiting:
                request.waiting = _approval_text(request.approvals)

    async def add_to_list(self, found: Iterable[Request]) -> None:
        """As `add_to`, without the field `approvals`: lists would become too long. `waiting` says enough.

        Args:
            found: The requests.

        Raises:
            UnavailableError: The database cannot be used now.
        """
        listed = list(found)
        await self.add_to(listed)
        for request in listed:
            if request.approvals:
                request.ClearField("approvals")

    def _reason(self, state: State, mark: str, known: Mapping[str, Requirement]) -> str:
        requirement_id, runner_id, _, text = mark.split(" ", 3)
        if text.startswith(PAUSED):
            if state is State.RUNNING and self.cannot_pause(runner_id):
                return f"{text}, and its job runner goes on until it shuts down: it cannot pause"
            return text
        runners = self.of_runners(state, known.get(requirement_id, NEEDS_NOTHING), runner_id)
        return "; ".join(filter(None, (text, runners)))

    async def _add_approvals(self, found: Mapping[str, Request]) -> None:
        """Adds the approvals that requests wait for. Those without approvals in their chains cost no read."""
        if found:
            for one in await self._approvals.of(found.keys()):
                if len(shown := found[one.key.request_id].approvals) < MAX_SHOWN:
                    shown.append(one.pending())


def _with_wait(mark: str, reason: str, wait: str) -> str:
    """Returns why a request waits, with the limit that it waits for.

    The `finally` parts of a request that ends may wait for keys too: both are said then. A paused request
    does not go on when it gets its keys, so the pause alone is said.
    """
    text = mark.split(" ", 3)[3]
    if not reason or (text and not text.startswith(PAUSED)):
        return "; ".join(filter(None, (reason, wait)))
    return reason


def _approval_text(waiting: Sequence[PendingApproval]) -> str:
    """Returns what a request waits for, as `Request.waiting` says it."""
    first = waiting[0]
    since = utc_text(first.opened_at.ToMicroseconds())
    roles = ", ".join(first.approval.roles)
    more = f", and for {len(waiting) - 1} more" if len(waiting) > 1 else ""
    return f"waits for an approval by {roles} since {since}{more}"
