"""The approvals that a chain waits for. A wait needs no thread: it is a row of the database.

The Request Managers store who decides and by when, and tell the runner how each wait ends. A wait that its
runner gives back, because the chain is paused or leaves the runner, goes on in the database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from spincycle_grpc.state import State
from spincycle_grpc.v1.approval_pb2 import (
    APPROVAL_RESULT_APPROVED,
    APPROVAL_RESULT_REJECTED,
    ApprovalKey,
    ApprovalOutcome,
    OpenedApproval,
)
from spincycle_server.job_runner.waiting_try import WaitingTry
from spincycle_server.utc_text import utc_text

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from spincycle_grpc.v1.approval_pb2 import Approval, ApprovalDecision
    from spincycle_server.chain import Run, RunningChain
    from spincycle_server.job_runner.chain_reports import ChainReports
    from spincycle_server.job_runner.try_result import TryResult


class ChainApprovals:
    """The waits of one chain.

    Args:
        chain: The chain.
        reports: Its reports.

    Attributes:
        job_ids: The jobs whose tries are waits for an approval.
    """

    def __init__(self, chain: RunningChain, reports: ChainReports) -> None:
        self._chain = chain
        self._reports = reports
        self._open: dict[str, WaitingTry] = {}
        self.job_ids = chain.approvals

    def without(self, runs: Iterable[Run]) -> Iterable[Run]:
        """Returns the tries that are not waits for an approval."""
        return [run for run in runs if run.job_id not in self.job_ids] if self.job_ids else runs

    def begin(self, run: Run) -> asyncio.Future[None]:
        """Begins to wait, and reports that. The result is done when the report is committed."""
        job = self._chain.jobs[run.job_id]
        self._open[run.job_id] = WaitingTry(run, time.time_ns())
        tries = ".".join(map(str, self._chain.sequence_tries_of(run.job_id)))
        opened = OpenedApproval(
            job_id=job.id,
            sequence_tries=tries,
            name=job.name,
            path=self._chain.path_of(job.id),
            approval=job.approval,
            **{"try": run.number},
        )
        return self._reports.opened(opened)

    def take_back(self) -> list[str]:
        """Ends all waits without an end of their tries. Returns their jobs."""
        taken, self._open = self._open, {}
        return list(taken)

    def decided(self, outcome: ApprovalOutcome) -> tuple[Run, TryResult] | None:
        """Ends a wait. Returns its try with the result; None if the chain does not wait for this."""
        wait = self._open.get(outcome.job_id)
        if wait is None or wait.run.number != getattr(outcome, "try"):
            return None
        del self._open[outcome.job_id]
        approval = self._chain.jobs[outcome.job_id].approval
        is_complete = outcome.result == APPROVAL_RESULT_APPROVED or (
            outcome.result != APPROVAL_RESULT_REJECTED and approval.continue_on_timeout
        )
        state = State.COMPLETE if is_complete else State.FAIL
        error = "" if is_complete else _error_of(outcome, approval)
        return wait.run, wait.ended(self._chain, state, error, account_of(outcome, approval))

    def stopped(self, job_id: str, error: str) -> tuple[Run, TryResult] | None:
        """Ends a wait because the try was told to stop. `error` makes the try FAIL; "" makes it STOPPED."""
        wait = self._open.pop(job_id, None)
        if wait is None:
            return None
        return wait.run, wait.ended(self._chain, State.FAIL if error else State.STOPPED, error)

    def keys(self) -> list[ApprovalKey]:
        """Returns the jobs that wait, each with its try."""
        return [ApprovalKey(job_id=wait.run.job_id, **{"try": wait.run.number}) for wait in self.waits()]

    def waits(self) -> Iterable[WaitingTry]:
        """Returns the tries that wait."""
        return self._open.values()


def _error_of(outcome: ApprovalOutcome, approval: Approval) -> str:
    if outcome.result == APPROVAL_RESULT_REJECTED:
        by = next((one for one in reversed(outcome.decisions) if not one.approved), None)
        return "rejected" if by is None else f"rejected by {by.user}{_reason(by)}"
    approved = sum(one.approved for one in outcome.decisions)
    needed = approval.approvals
    return f"not approved within {approval.timeout}: {approved} of {needed} approvals"


def account_of(outcome: ApprovalOutcome, approval: Approval) -> str:
    """Returns who decided what, when and why, a line for each decision.

    The message contains args, so each line is escaped: nobody can add a line that looks like a decision.
    """
    lines = [f"{_when(outcome.opened_at)} asked: {approval.message or 'no message'}"]
    lines += [
        f"{_when(one.decided_at)} {'approved' if one.approved else 'rejected'} by {one.user}{_reason(one)}"
        for one in outcome.decisions
    ]
    if outcome.result not in (APPROVAL_RESULT_APPROVED, APPROVAL_RESULT_REJECTED):
        goes_on = ": goes on, as the spec says" if approval.continue_on_timeout else ""
        lines.append(f"no decision within {approval.timeout}{goes_on}")
    return "".join(f"{_escaped(line)}\n" for line in lines)


def _escaped(text: str) -> str:
    """Returns a text as one line, with escapes for characters that are not printable."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _reason(decision: ApprovalDecision) -> str:
    return f": {decision.comment}" if decision.comment else ""


def _when(at: Timestamp) -> str:
    return utc_text(at.ToMicroseconds())
