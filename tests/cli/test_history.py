"""`spinc history`: who did what with a request."""

from __future__ import annotations

import json

from spincycle_grpc.errors import FailedPreconditionError, NotFoundError
from tests.cli.conftest import Spinc
from tests.fake_manager import REQUEST_ID, FakeManager, event


def test_history_shows_the_oldest_event_first(manager: FakeManager, spinc: Spinc) -> None:
    manager.events = [
        event(
            operation="RequestManager.Stop", user="wren", outcome="ACCESS_DENIED", count=3, detail="no " * 90
        ),
        event(),
    ]
    lines = spinc("history", REQUEST_ID).stdout.splitlines()
    assert lines[0].split() == ["TIME", "USER", "OPERATION", "OUTCOME", "COUNT", "FROM", "DETAIL"]
    assert lines[1].split()[3:] == ["finch", "RequestManager.Create", "OK", "1", "10.0.0.9"]
    assert lines[2].split()[3:7] == ["wren", "RequestManager.Stop", "ACCESS_DENIED", "3"]
    assert lines[2].endswith("no " * 89 + "no")
    shown = json.loads(spinc("history", REQUEST_ID, "--json").stdout)
    assert [one["operation"] for one in shown] == ["RequestManager.Create", "RequestManager.Stop"]
    assert shown[0] == {
        "id": "0123456789abcdef0123",
        "occurredAt": "2027-01-15T08:00:00Z",
        "user": "finch",
        "authMethod": "token",
        "peer": "10.0.0.9",
        "transport": "grpc",
        "operation": "RequestManager.Create",
        "requestId": REQUEST_ID,
        "requestType": "nap",
        "outcome": "OK",
        "count": 1,
    }


def test_history_reads_as_many_pages_as_the_limit_needs(manager: FakeManager, spinc: Spinc) -> None:
    manager.events = [event(count=number) for number in range(2500)]
    shown = json.loads(spinc("history", REQUEST_ID, "--json", "--limit=2100").stdout)
    assert [one["count"] for one in shown] == list(range(2099, -1, -1))
    limits = [request.filter.limit for request in manager.requests("ListAuditEvents")]
    assert limits == [1000, 1000, 100]
    assert len(json.loads(spinc("history", REQUEST_ID, "--json").stdout)) == 1000


def test_a_request_without_events_shows_the_headings_alone(manager: FakeManager, spinc: Spinc) -> None:
    manager.events = []
    assert len(spinc("history", REQUEST_ID).stdout.splitlines()) == 1
    assert spinc("history", REQUEST_ID, "--json").stdout == "[]\n"


def test_an_unknown_request_without_events_is_an_error(manager: FakeManager, spinc: Spinc) -> None:
    manager.events = []
    manager.failures["Get"] = [NotFoundError("request x not found")]
    unknown = spinc("history", REQUEST_ID)
    assert (unknown.exit_code, unknown.stdout, unknown.stderr) == (3, "", "spinc: request x not found\n")


def test_errors_end_it_with_one_sentence(manager: FakeManager, spinc: Spinc) -> None:
    missing = spinc("history", "nosuch")
    assert (missing.exit_code, missing.stderr) == (3, "spinc: request nosuch not found\n")
    manager.failures["ListAuditEvents"] = [FailedPreconditionError("no audit log", reason="AUDIT_OFF")]
    off = spinc("history", REQUEST_ID)
    assert (off.exit_code, off.stdout, off.stderr) == (3, "", "spinc: no audit log\n")
