"""Decisions about approvals: a decision is committed first, and then the runner is told.

So a decision is not lost if a runner or a Request Manager dies. A runner that was not told learns of the end
of a wait when it next reports the wait or lists its chains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    PermissionDeniedError,
)
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_server.identity.access import VIEW
from spincycle_server.request_manager.holders import Holders
from spincycle_server.store.approval_rows import WaitKey
from spincycle_server.store.approvals import Decider
from spincycle_server.store.pages import PAGE_BYTES
from spincycle_server.store.schema import MAX_COMMENT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spincycle_grpc.auth import Caller
    from spincycle_grpc.v1.approval_pb2 import PendingApproval
    from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
    from spincycle_server.identity.access import VisibleTypes
    from spincycle_server.identity.permissions import Permissions
    from spincycle_server.request_manager.audit import AuditLog
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.rpc import CallContext
    from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

MAX_LISTED = 1000
"""The maximum number of approvals in a list."""


class RequestApprover:
    """Stores decisions, and tells runners how waits have ended.

    Args:
        store: Where decisions are stored.
        runners: How runners are told.
        audit: Makes the audit events, and knows who is an administrator.
        permissions: Decides who may view requests.
    """

    def __init__(self, store: Store, runners: Runners, audit: AuditLog, permissions: Permissions) -> None:
        self._store = store
        self._runners = runners
        self._audit = audit
        self._permissions = permissions
        self._holders = Holders(store, runners)

    async def decide(
        self,
        request: messages.ApproveRequest | messages.RejectRequest,
        context: CallContext,
        method: str,
        *,
        approved: bool,
    ) -> PendingApproval:
        """Stores a decision. Returns the approval after it, when the runner was told if the wait has ended.

        A runner that does not answer learns of it with its next report.

        Args:
            request: The request of the call, with the whole id of the request.
            context: The call.
            method: The service and the method, for the audit log.
            approved: Whether the caller approves.

        Raises:
            NotFoundError: The request does not exist.
            InvalidArgumentError: The comment cannot be stored (BAD_COMMENT), or the request waits for several
                approvals (AMBIGUOUS_APPROVAL).
            PermissionDeniedError: The caller may not decide. Reasons: NOT_AN_APPROVER, OWN_REQUEST; or
                ACCESS_DENIED instead of any error but OWN_REQUEST, if the caller may not view the request.
            FailedPreconditionError: The request does not wait for this (APPROVAL_NOT_OPEN), or users are not
                authenticated (NEEDS_AUTHENTICATION).
        """
        if not self._audit.is_on:
            raise FailedPreconditionError(
                "the server does not authenticate users, so nobody can approve or reject: configure auth",
                reason="NEEDS_AUTHENTICATION",
                request_id=request.request_id,
            )
        comment = checked_comment(request.comment)
        found = await self._store.get_request(request.request_id, with_job_chain=False)
        try:
            decided = await self._store.approvals.decide(
                request.request_id,
                request.job_id,
                getattr(request, "try"),
                self._decider(context.caller),
                comment,
                approved=approved,
                event=self._audit.event(context, method, found.id, found.type),
            )
        except (FailedPreconditionError, InvalidArgumentError, PermissionDeniedError) as error:
            # These errors tell what the request does, and who may decide. A requester knows that.
            if error.reason != "OWN_REQUEST" and self._permissions.restrict_reads_of(context.identity):
                await self._permissions.check(context.caller, VIEW, found)
            raise
        logger.info(
            "approval decided",
            request_id=decided.request_id,
            job_id=decided.job_id,
            user=context.caller.name,
            approved=approved,
        )
        if decided.result:
            await self._tell_holder(WaitKey(decided.request_id, decided.job_id, getattr(decided, "try")))
        return self.marked([decided], context.caller)[0]

    async def listed(
        self, caller: Caller, visible: VisibleTypes, *, only_mine: bool
    ) -> messages.ListApprovalsResponse:
        """Returns the approvals that requests wait for, and that a caller may see or decide.

        Args:
            caller: The caller.
            visible: The types of requests that the caller may view.
            only_mine: Only those that the caller may decide.
        """
        found = await self._store.approvals.waiting(MAX_LISTED + 1)
        shown = [
            one
            for one in self.marked(found[:MAX_LISTED], caller)
            if one.may_decide or (not only_mine and visible.has(one.request_type))
        ]
        response = messages.ListApprovalsResponse(more=len(found) > MAX_LISTED)
        size = 0
        for one in shown:
            size += one.ByteSize()
            if size > PAGE_BYTES:
                response.more = True
                break
            response.approvals.append(one)
        return response

    def marked(self, found: Iterable[PendingApproval], caller: Caller) -> list[PendingApproval]:
        """Returns approvals with the mark whether a caller may decide about them."""
        decider = self._decider(caller)
        marked = list(found)
        for one in marked:
            one.may_decide = self._audit.is_on and decider.may_decide(one)
        return marked

    def _decider(self, caller: Caller) -> Decider:
        is_admin = self._audit.is_on and self._audit.is_admin(caller)
        return Decider(caller.name, frozenset(caller.roles), is_admin)

    async def _tell_holder(self, key: WaitKey) -> None:
        """Tells the runner of a request how a wait has ended. Tries a few times."""

        async def tell(runner: RunnerInfo, assignment: Assignment) -> None:
            for outcome in await self._store.approvals.outcomes({key: assignment}):
                await self._runners.end_approval(runner, outcome)

        await self._holders.tell(key.request_id, tell)


def checked_comment(comment: str) -> str:
    """Returns a comment as one line.

    Raises:
        InvalidArgumentError: It is too long, or cannot be shown. Reason: BAD_COMMENT.
    """
    line = " ".join(comment.split())
    if len(line) <= MAX_COMMENT and line.isprintable():
        return line
    why = (
        f"has {len(line)} characters: at most {MAX_COMMENT} are allowed"
        if len(line) > MAX_COMMENT
        else "has characters that cannot be shown: leave them out"
    )
    raise InvalidArgumentError(f"the comment {why}", reason="BAD_COMMENT", field="comment")
