"""The approvals that requests wait for behind coroutines, as the Store has them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from spincycle_grpc.v1.approval_pb2 import (
    APPROVAL_RESULT_APPROVED,
    APPROVAL_RESULT_REJECTED,
    APPROVAL_RESULT_TIMED_OUT,
    ApprovalOutcome,
    PendingApproval,
)
from spincycle_server.database.read_pool import ReadPool
from spincycle_server.store.approval_rows import (
    StoredApproval,
    WaitKey,
    approvals_of,
    ended_waits,
    waiting_approvals,
)
from spincycle_server.store.approvals import Decide, Decider, EndOverdue
from spincycle_server.store.group_commit import GroupCommitWriter

if TYPE_CHECKING:
    from spincycle_grpc.v1.runner_reports_pb2 import Assignment
    from spincycle_server.store.audit import EventRow

_DELIVERED = (APPROVAL_RESULT_APPROVED, APPROVAL_RESULT_REJECTED, APPROVAL_RESULT_TIMED_OUT)
"""The results of approvals that runners are told."""


class WaitingApprovals:
    """The approvals that requests wait for. Every method may raise UnavailableError.

    Args:
        reader: Reads.
        writer: Writes.
    """

    def __init__(self, reader: ReadPool, writer: GroupCommitWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def decide(
        self,
        request_id: str,
        job_id: str,
        number: int,
        decider: Decider,
        comment: str,
        *,
        approved: bool,
        event: EventRow | None = None,
    ) -> PendingApproval:
        """Stores the decision of a person about an approval. Returns the approval after it.

        Args:
            request_id: The request.
            job_id: The job that waits; "" for the only one.
            number: The try that the person has seen; 0 for whichever waits.
            decider: Who decides.
            comment: Why, or "".
            approved: Whether the person approves. Otherwise the person rejects.
            event: The audit event of the call, which is stored if this changes anything.

        Raises:
            NotFoundError: The request does not exist.
            InvalidArgumentError: The request waits for several approvals. Reason: AMBIGUOUS_APPROVAL.
            PermissionDeniedError: The person may not decide. Reasons: NOT_AN_APPROVER, OWN_REQUEST.
            FailedPreconditionError: The request does not wait for this. Reason: APPROVAL_NOT_OPEN.
        """
        decided: PendingApproval = await self._writer.write(
            Decide(request_id, job_id, number, decider, approved, comment, event)
        )
        return decided

    async def waiting(self, limit: int) -> list[PendingApproval]:
        """Returns the approvals that requests wait for, the oldest first, up to a limit."""
        found = await self._reader.read(waiting_approvals, limit)
        return [one.pending() for one in found]

    async def of(self, request_ids: Collection[str]) -> list[StoredApproval]:
        """Returns the approvals that some requests wait for, the oldest first."""
        return await self._reader.read(approvals_of, request_ids)

    async def outcomes(self, waits: Mapping[WaitKey, Assignment]) -> list[ApprovalOutcome]:
        """Returns how waits have ended, of those that a runner holds. Ends those whose time is over.

        Args:
            waits: The approvals that its chains wait for, each with the assignment of the chain.
        """
        if not waits:
            return []
        found = await self._reader.read(ended_waits, waits.keys())
        overdue = {one.key.request_id for one in found if one.is_waiting}
        if overdue:
            await self._writer.write(EndOverdue(sorted(overdue)))
            found = await self._reader.read(ended_waits, waits.keys())
        return [one.outcome(waits[one.key]) for one in found if one.result in _DELIVERED]
