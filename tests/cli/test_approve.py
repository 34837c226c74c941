"""`spinc approve`, `spinc reject` and `spinc ps --waiting`, and what `spinc status` shows of approvals."""

from __future__ import annotations

import json

import pytest

from spincycle_grpc.errors import FailedPreconditionError
from spincycle_grpc.state import State
from spincycle_grpc.v1.approval_pb2 import (
    APPROVAL_RESULT_APPROVED,
    APPROVAL_RESULT_REJECTED,
    ApprovalDecision,
)
from tests.cli.conftest import Spinc
from tests.fake_manager import REQUEST_ID, FakeManager, approval, stage


def waits(manager: FakeManager, *, jobs: int = 1) -> None:
    """Lets the request wait for approvals."""
    request = stage(State.RUNNING, 2)
    for number in range(jobs):
        one = request.approvals.add()
        one.CopyFrom(approval())
        if number:
            one.job_id = f"app{number}"
            one.path[:] = ["stop-host", f"host web{number}", "permit"]
    manager.stages = [request]


def test_an_approval_names_the_request_and_the_comment(spinc: Spinc, manager: FakeManager) -> None:
    manager.approval.result = APPROVAL_RESULT_APPROVED
    done = spinc("approve", REQUEST_ID, "--comment", "it is idle")
    assert done.output == f"approved: stop-host / permit of request {REQUEST_ID} goes on\n"
    (asked,) = manager.requests("Approve")
    assert (asked.request_id, asked.job_id, asked.comment) == (REQUEST_ID, "", "it is idle")


def test_an_approval_says_how_many_are_missing(spinc: Spinc, manager: FakeManager) -> None:
    manager.approval.decisions.append(ApprovalDecision(user="ann", approved=True))
    done = spinc("approve", REQUEST_ID)
    assert done.output.endswith("waits for 1 more of 2 approvals\n")


def test_a_rejection_says_so_and_has_json(spinc: Spinc, manager: FakeManager) -> None:
    manager.approval.result = APPROVAL_RESULT_REJECTED
    assert spinc("reject", REQUEST_ID).output.startswith("rejected: stop-host / permit")
    assert json.loads(spinc("reject", REQUEST_ID, "--json").output)["result"] == "rejected"
    assert len(manager.requests("Reject")) == 2


@pytest.mark.parametrize(("job", "found"), [("appr", "appr"), ("host web1", "app1"), ("app2", "app2")])
def test_a_job_has_an_id_and_a_path(spinc: Spinc, manager: FakeManager, job: str, found: str) -> None:
    waits(manager, jobs=3)
    assert spinc("approve", REQUEST_ID, "--job", job).exit_code == 0
    (asked,) = manager.requests("Approve")
    assert (asked.job_id, getattr(asked, "try")) == (found, 1)


def test_a_job_that_does_not_wait_or_is_ambiguous_is_refused(spinc: Spinc, manager: FakeManager) -> None:
    waits(manager, jobs=3)
    ambiguous = spinc("approve", REQUEST_ID, "--job", "permit")
    assert ambiguous.exit_code == 3
    assert "names several jobs that wait: appr (stop-host / permit)" in ambiguous.output
    unknown = spinc("reject", REQUEST_ID, "--job", "drain")
    assert unknown.exit_code == 3
    assert "no job 'drain' waits for an approval" in unknown.output
    assert not manager.requests("Approve") + manager.requests("Reject")


def test_an_approval_that_is_refused_has_the_servers_reason(spinc: Spinc, manager: FakeManager) -> None:
    error = FailedPreconditionError("its time is over", reason="APPROVAL_NOT_OPEN")
    manager.failures["Approve"] = [error]
    done = spinc("approve", REQUEST_ID)
    assert (done.exit_code, "its time is over" in done.output) == (3, True)


def test_ps_lists_what_requests_wait_for(spinc: Spinc, manager: FakeManager) -> None:
    heading, row = spinc("ps", "--waiting").output.splitlines()
    assert heading.split()[-2:] == ["YOU", "MESSAGE"]
    assert "stop-host / permit" in row
    assert "2 more of 2 approvals" in row
    assert row.endswith("decide  Stop host web1?")
    assert json.loads(spinc("ps", "--waiting", "--json").output)["approvals"][0]["jobId"] == "appr"
    manager.approvals.ClearField("approvals")
    assert "no request waits for an approval" in spinc("ps", "--waiting").output


def test_status_shows_what_a_request_waits_for_and_what_to_type(spinc: Spinc, manager: FakeManager) -> None:
    waits(manager)
    output = spinc("status", REQUEST_ID).output
    assert "waits for an approval:\n  stop-host / permit (job appr)\n    message: Stop host web1?\n" in output
    assert "    needs: 2 more of 2 approvals by dba, lead\n" in output
    assert f"  spinc approve {REQUEST_ID}" in output
    assert f"  spinc reject {REQUEST_ID}" in output
