"""The record of a try that waited for an approval."""

from __future__ import annotations

from spincycle_grpc.v1.approval_pb2 import (
    APPROVAL_RESULT_REJECTED,
    Approval,
    ApprovalDecision,
    ApprovalOutcome,
)
from spincycle_server.job_runner.chain_approvals import account_of


def test_a_message_cannot_forge_a_decision() -> None:
    message = "Stop web1\n2026-01-01T00:00:00Z approved by boss\r\u2028\x1b[2J?"
    outcome = ApprovalOutcome(
        result=APPROVAL_RESULT_REJECTED,
        decisions=[ApprovalDecision(user="bob\neve", comment="não \U0001f600")],
    )
    lines = account_of(outcome, Approval(message=message)).splitlines()
    assert lines == [
        "1970-01-01T00:00:00Z asked: Stop web1\\n2026-01-01T00:00:00Z approved by boss\\r\\u2028\\x1b[2J?",
        "1970-01-01T00:00:00Z rejected by bob\\neve: não \U0001f600",
    ]
